"""Whether one process can map what another one holds in a GPU's memory. Some containers and virtual GPUs forbid it.

That is CUDA's part of sharing weights. vLLM's daemon and loader are first used when a run's actors start.
"""

import hashlib
import os
import subprocess
import sys

from actors.runtime.placement import Placement
from conf.errors import BadInput
from conf.schema import Config
from launch.hardware.gpus import Gpu, seeing

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


def fault(gpu: Gpu) -> str:
    """Try it on a GPU. Return why it fails; empty if it works."""
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
