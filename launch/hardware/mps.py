"""NVIDIA's Multi-Process Service: processes on one GPU compute at the same time instead of in turn."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from actors.runtime.placement import Placement
from actors.runtime.process import MPS_TOOL as TOOL
from actors.runtime.process import end_with
from actors.runtime.ray_session import root_of
from actors.storage.files import lock
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware.gpus import Gpu, seeing

ANSWER_S = 20.0
"""Seconds that the service has to end."""

START_S = 1.0
"""Seconds after which a service that has not ended counts as started."""

CLIENT_S = 120.0
"""Seconds that a client has to compute. It imports torch, and the first one starts the server, which looks at all GPUs.
"""

CLIENT = f"""
import os, subprocess
os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # as the learner
import torch
ones = torch.ones(64, 64, device="cuda")
assert (ones @ ones == 64).all()
servers = subprocess.run(["{TOOL}"], input="get_server_list\\n", capture_output=True, text=True).stdout
assert any(map(str.isdigit, servers.split())), "it computed without a server"
"""
"""Program of a client: it computes on the visible GPU, and looks for a server of the service, because CUDA computes
without one, and says nothing, if it does not reach the service."""

PRICE = (
    "engine and learner compute on the GPU at the same time through NVIDIA's MPS: a memory fault of one of them ends"
    " both, which then start again"
)
"""Text of the event that a run with MPS records."""


def installed() -> bool:
    """Whether the driver's tool that starts the service is on the PATH."""
    return shutil.which(TOOL) is not None


def check_mps(config: Config, placement: Placement, joined: bool, at_once: int = 1, fault: str = "") -> None:
    """Raise BadInput if the service is requested and cannot be started. at_once: runs at a time on this machine. fault:
    why no client can compute, see `running`.
    """
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
    elif not installed():
        reason = f"there is no {TOOL} on the PATH; install the driver's tools, or"
    elif fault:
        reason = f"{fault}; check that no other user's service runs, or"
    if reason:
        raise BadInput(f"run.nvidia_mps=on: {reason} leave it out")


@contextlib.contextmanager
def running(gpus: Sequence[Gpu]) -> Iterator[str]:
    """Run the service for all processes started within the context, and yield why no client can compute on the GPU with
    the most free memory; empty if one can. gpus: those that this process may use.

    The service sees all GPUs in the order of PCI buses; otherwise it would renumber its clients' GPUs. The service of a
    killed run is ended first; that of another run stays, and is the reason yielded. This run's service ends with this
    process, even after kill -9.
    """
    name = f"mps-{','.join(gpu.index for gpu in gpus)}"
    folder = root_of(f"{name}/pipe/control_privileged") / name
    held = lock(folder, place="TMPDIR")
    if held is None:
        yield "another run uses the service"
        return
    for name in ("pipe", "log"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[f"CUDA_MPS_{name.upper()}_DIRECTORY"] = str(folder / name)
    _quit()
    environment = os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    service = _start([TOOL, "-f"], environment, subprocess.DEVNULL)
    try:
        yield _failure(service, folder / "log" / "control.log", max(gpus, key=lambda gpu: gpu.free or 0))
    finally:
        if service.poll() is None:
            _quit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.wait(ANSWER_S)
        service.kill()
        service.wait()
        for name in ("PIPE", "LOG"):
            os.environ.pop(f"CUDA_MPS_{name}_DIRECTORY", None)
        os.close(held)


def _failure(service: "subprocess.Popen[str]", log: Path, gpu: Gpu) -> str:
    """Return why the service has ended, or why a client of it cannot compute; empty if one can."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = service.wait(START_S)
        said = log.read_text(errors="replace").splitlines()[-1:] if log.is_file() else []
        return f"{TOOL} ended with {code}{''.join(f' and said: {line}' for line in said)}"
    client = _start([sys.executable, "-c", CLIENT], os.environ | seeing(gpu), subprocess.PIPE)
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
