"""NVIDIA's Multi-Process Service: processes on one GPU compute at the same time instead of in turn."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial

from actors.runtime.placement import Placement
from actors.runtime.process import end_with
from actors.storage.files import private_folder
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware.machine import Machine

TOOL = "nvidia-cuda-mps-control"

ANSWER_S = 20.0
"""Seconds that the service has to end."""

PRICE = (
    "engine and learner compute on the GPU at the same time through NVIDIA's MPS: a memory fault of one of them ends"
    " both, which then start again"
)
"""Text of the event that the run records."""


def resolve_mps(config: Config, placement: Placement, machine: Machine) -> str:
    """Return run.nvidia_mps, with `auto` resolved: on if engine and learner share a GPU of this machine."""
    if config.run.nvidia_mps != "auto":
        return config.run.nvidia_mps
    here = machine.present and not machine.nodes and placement.shared and shutil.which(TOOL) is not None
    return "on" if here else "off"


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
def mps_service(config: Config) -> Iterator[None]:
    """Run the service, if it is requested, for all processes started within the context.

    The service sees all GPUs in the order of PCI buses; otherwise it would renumber its clients' GPUs. The service of a
    killed run is ended first. This run's service ends with this process, even after kill -9.
    """
    if not config.run.mps:
        yield
        return
    folder = private_folder() / f"mps-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
    for name in ("pipe", "log"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[f"CUDA_MPS_{name.upper()}_DIRECTORY"] = str(folder / name)
    _quit()
    environment = os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    service = subprocess.Popen(
        [TOOL, "-f"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(end_with, os.getpid()),
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = service.wait(1.0)
            log = folder / "log" / "control.log"
            said = log.read_text(errors="replace").splitlines()[-1:] if log.is_file() else []
            raise BadInput(
                f"run.nvidia_mps=on: {TOOL} ended with {code}{''.join(f' and said: {line}' for line in said)};"
                " check that no other user's service runs, or leave it out"
            )
        yield
    finally:
        _quit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.wait(ANSWER_S)
        service.kill()
        service.wait()
        for name in ("PIPE", "LOG"):
            os.environ.pop(f"CUDA_MPS_{name}_DIRECTORY", None)


def _quit() -> None:
    """Tell the service at this process's pipe to end, if there is one."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([TOOL], input="quit\n", text=True, capture_output=True, timeout=ANSWER_S)
