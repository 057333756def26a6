"""NVIDIA's Multi-Process Service: the processes on one card compute at the same time and not in turn."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from actors.runtime.placement import Placement
from actors.runtime.process import end_with
from actors.storage.files import private_folder
from conf.errors import BadInput
from conf.schema import Config

TOOL = "nvidia-cuda-mps-control"

ANSWER_S = 20.0
"""Seconds the service may take to start or to end."""

PRICE = (
    "engine and learner compute on the card at the same time through NVIDIA's MPS: a memory fault of one of them ends"
    " both, which then start again"
)
"""What an event of the run says."""


def check_mps(config: Config, placement: Placement, joined: bool, beside: int = 1) -> None:
    """Raise BadInput if the service is asked for and cannot be: before anything expensive is started.

    beside: runs at a time on this machine.
    """
    if not config.run.mps:
        return
    if joined:
        raise BadInput("run.mps=true: on a cluster the service belongs to whoever started the nodes; leave it out")
    if placement.device != "cuda" or not placement.shared:
        raise BadInput("run.mps=true: engine and learner share no card here; leave it out")
    if beside > 1:
        raise BadInput(
            f"run.mps=true: a service sees all cards, and {beside} runs at a time would start one each; show the sweep"
            " one card (CUDA_VISIBLE_DEVICES=0), or leave it out"
        )
    if shutil.which(TOOL) is None:
        raise BadInput(f"run.mps=true: there is no {TOOL} on the PATH; install the driver's tools, or leave it out")


@contextlib.contextmanager
def mps_service(config: Config) -> Iterator[None]:
    """Have the service run meanwhile for all processes that are started, if it is asked for.

    It sees all cards, in the order of PCI buses, or it would number those of its clients anew. A service that a killed
    run has left is ended first; one of this run ends with this process, however that ends.
    """
    if not config.run.mps:
        yield
        return
    folder = private_folder() / f"mps-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
    for name in ("pipe", "log"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ["CUDA_MPS_LOG_DIRECTORY"] = (
        str(folder / "pipe"),
        str(folder / "log"),
    )
    _quit()
    service = subprocess.Popen(
        [TOOL, "-f"],
        env={key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(end_with, os.getpid()),
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = service.wait(1.0)
            said = _last_words(folder / "log" / "control.log")
            raise BadInput(
                f"run.mps=true: {TOOL} ended with {code}{said}; see that no other user's service runs, or leave it out"
            )
        yield
    finally:
        _quit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.wait(ANSWER_S)
        service.kill()
        service.wait()
        for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
            os.environ.pop(name, None)


def _quit() -> None:
    """Tell the service at this process's pipe to end, if there is one."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([TOOL], input="quit\n", text=True, capture_output=True, timeout=ANSWER_S)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return f" and said: {lines[-1]}" if lines else ""
