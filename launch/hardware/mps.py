"""NVIDIA's Multi-Process Service: processes on one GPU compute at the same time instead of in turn."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from actors.runtime.placement import Placement
from actors.runtime.process import end_with
from actors.storage.files import private_folder
from conf.errors import BadInput
from conf.schema import Config
from conf.settings import changed
from launch.hardware.machine import Machine

TOOL = "nvidia-cuda-mps-control"

START_S = 1.0
"""Seconds after which a service that has not ended counts as started."""

ANSWER_S = 20.0
"""Seconds that the service has to end."""

CLIENT_S = 120.0
"""Seconds that a client has to compute. It imports torch, and the first one starts the server, which looks at all GPUs.
"""

CLIENT = """
import os
os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # as the learner
import torch
ones = torch.ones(64, 64, device="cuda")
assert (ones @ ones == 64).all()
"""
"""Program of a client: it computes on the first visible GPU."""

PRICE = (
    "engine and learner compute on the GPU at the same time through NVIDIA's MPS: a memory fault of one of them ends"
    " both, which then start again"
)
"""Text of the event that the run records."""


def resolve_mps(config: Config, placement: Placement, machine: Machine) -> str:
    """Return run.nvidia_mps, with `auto` resolved: on if engine and learner compute at the same time on one GPU of
    this machine, or of one that is only planned for.
    """
    if config.run.nvidia_mps != "auto":
        return config.run.nvidia_mps
    apart = placement.device != "cuda" or not placement.shared or not config.learner.max_staleness
    able = not machine.nodes and (not machine.present or shutil.which(TOOL) is not None)
    return "on" if able and not apart else "off"


def check_mps(config: Config, placement: Placement, joined: bool, at_once: int = 1) -> None:
    """Raise BadInput if the service is requested and cannot be started. at_once: runs at a time on this machine."""
    if not config.run.mps:
        return
    reason = ""
    if joined:
        reason = "on a cluster the service belongs to the user who started the nodes;"
    elif placement.device != "cuda" or not placement.shared:
        reason = "engine and learner share no GPU here;"
    elif at_once > 1:
        reason = (
            f"a service sees all GPUs, and {at_once} runs at a time would start one each; set CUDA_VISIBLE_DEVICES=0 or"
        )
    elif shutil.which(TOOL) is None:
        reason = f"there is no {TOOL} on the PATH; install the driver's tools, or"
    if reason:
        raise BadInput(f"run.nvidia_mps=on: {reason} leave it out")


@contextlib.contextmanager
def mps_service(config: Config, asked: str) -> Iterator[tuple[Config, str]]:
    """Run the service, if it is requested, for all processes started within the context. Yield the settings that hold,
    and the text of the run's event; empty if the service was not requested.

    asked: run.nvidia_mps before the plan decided. Where no client can compute, auto is off; on raises BadInput.
    """
    if not config.run.mps:
        yield config, ""
        return
    with contextlib.ExitStack() as service:
        reason, event = service.enter_context(_running()), PRICE
        if reason and asked == "on":
            raise BadInput(f"run.nvidia_mps=on: {reason}; check that no other user's service runs, or leave it out")
        if reason:
            service.close()
            config, event = changed(config, {"run.nvidia_mps": "off"}), f"engine and learner take turns: {reason}"
        if asked == "auto":
            print(f"run.nvidia_mps=auto is {config.run.nvidia_mps} here: {event}")
        yield config, event


@contextlib.contextmanager
def _running() -> Iterator[str]:
    """Run the service, and yield why no client can compute on the first visible GPU; empty if one can.

    The service sees all GPUs in the order of PCI buses; otherwise it would renumber its clients' GPUs. The service of a
    killed run is ended first. This run's service ends with this process, even after kill -9.
    """
    folder = private_folder() / f"mps-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
    for name in ("pipe", "log"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[f"CUDA_MPS_{name.upper()}_DIRECTORY"] = str(folder / name)
    _quit()
    environment = os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    service = _start([TOOL, "-f"], environment, subprocess.DEVNULL)
    try:
        yield _failure(service, folder / "log" / "control.log")
    finally:
        if service.poll() is None:
            _quit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.wait(ANSWER_S)
        service.kill()
        service.wait()
        for name in ("PIPE", "LOG"):
            os.environ.pop(f"CUDA_MPS_{name}_DIRECTORY", None)


def _failure(service: "subprocess.Popen[str]", log: Path) -> str:
    """Return why the service has ended, or why a client of it cannot compute; empty if one can."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = service.wait(START_S)
        said = log.read_text(errors="replace").splitlines()[-1:] if log.is_file() else []
        return f"{TOOL} ended with {code}{''.join(f' and said: {line}' for line in said)}"
    client = _start([sys.executable, "-c", CLIENT], dict(os.environ), subprocess.PIPE)
    try:
        _, error = client.communicate(timeout=CLIENT_S)
    except subprocess.TimeoutExpired:
        client.kill()
        return f"a client of {TOOL} did not compute within {CLIENT_S:g} s"
    said = [line for line in error.splitlines() if "Error" in line] or [f"exit code {client.returncode}"]
    return f"a client of {TOOL} failed: {said[0]}" if client.returncode else ""


def _start(command: list[str], environment: dict[str, str], stderr: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        preexec_fn=partial(end_with, os.getpid()),
    )


def _quit() -> None:
    """Tell the service at this process's pipe to end, if there is one."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([TOOL], input="quit\n", text=True, capture_output=True, timeout=ANSWER_S)
