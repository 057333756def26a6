"""Tries what the GPUs of this machine allow before a run is planned: NVIDIA's MPS, and mapping another's memory."""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from actors.runtime.placement import Placement
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware import mps
from launch.hardware.gpus import Gpu, seeing
from launch.hardware.machine import Machine

HOLDER = """
import os, subprocess, sys
for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
    os.environ.pop(name, None)  # as the holder of a run's weights
import torch
from actors.rollout.shared_weights import handles
subprocess.run([sys.executable, "-c", sys.argv[1]], input=handles(torch.nn.Linear(512, 512, device="cuda")), check=True)
"""
READER = """
import os, pickle, sys
os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # as the learner, which maps the weights
assert pickle.load(sys.stdin.buffer)["weight"].any()
"""
"""Programs of two processes: each ends with an error unless the second one reads the memory of the first."""

TRY_S = 120.0
"""Seconds that the two programs get: each imports torch and takes a context on the GPU."""


def ipc_fault(gpu: Gpu) -> str:
    """Try on a GPU whether one process can map what another one holds in its memory. Return why not; empty if it can.

    Some containers and virtual GPUs forbid it. That is CUDA's part of sharing weights: vLLM's daemon and loader are
    first used when a run's actors start.
    """
    try:
        hashlib.md5()
    except ValueError:  # vLLM takes SHA-256 then, whose longer digest no folder of a run has room for
        return "in FIPS mode the path of the socket of vLLM's weights daemon is too long"
    command, environment = [sys.executable, "-c", HOLDER, READER], os.environ | seeing(gpu)
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=TRY_S)
    except subprocess.TimeoutExpired:
        return f"mapping GPU memory of another process took more than {TRY_S:.0f} s"
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "Error" in line] or [str(error)]
        return f"mapping GPU memory of another process failed: {said[0]}"
    return ""


def check_sharing(asked: Config, placement: Placement, fault: str) -> None:
    """Raise BadInput if model.shared_weights=on was asked for, and is not possible as placed or by a fault."""
    if not placement.weights:
        fault = "engine and learner share no GPU of this machine"
    if fault and asked.model.shares_weights:
        raise BadInput(f"model.shared_weights=on: {fault}; leave it out")


@dataclass(frozen=True)
class Trial:
    """What works on a machine.

    machine: the machine with these facts.
    no_mps, no_ipc: why it does not work; empty if it does, or if it was not tried.
    end_mps: ends the service, which otherwise runs as long as the context of `tried`.
    """

    machine: Machine
    no_mps: str
    no_ipc: str
    end_mps: Callable[[], None]


@contextlib.contextmanager
def tried(config: Config, machine: Machine) -> Iterator[Trial]:
    """Try what a run with these settings may use on this machine, and keep a service of MPS that works running for all
    processes started within the context. A cluster's GPUs are not tried, nor is one that is not here.
    """
    gpus = () if machine.nodes else machine.cards
    no_mps = no_ipc = ""
    with contextlib.ExitStack() as service:
        overlap = config.run.nvidia_mps == "auto" and config.learner.max_staleness > 0
        if gpus and machine.mps and (config.run.mps or overlap):
            no_mps = service.enter_context(mps.running(gpus))
            if no_mps:
                service.close()
        if len(gpus) == 1 and machine.ipc and config.model.shared_weights != "off":
            no_ipc = ipc_fault(gpus[0])
        facts = replace(machine, mps=machine.mps and not no_mps, ipc=machine.ipc and not no_ipc, tried=True)
        yield Trial(facts, no_mps, no_ipc, service.close)
