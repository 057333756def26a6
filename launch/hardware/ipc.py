"""Whether one process can map what another one holds in a GPU's memory. Some containers and virtual GPUs forbid it.

That is CUDA's part of sharing weights. vLLM's daemon and loader are first used when a run's actors start.
"""

import subprocess
import sys

from actors.runtime.placement import Placement
from conf.errors import BadInput
from conf.schema import Config

HOLDER = """
import subprocess, sys, torch
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


def not_shared(asked: Config, placement: Placement) -> str:
    """Return why engine and learner cannot share weights as placed; empty if they can, or if it is not planned. Call it
    where the run's GPU is the first visible one, with room, and its MPS has started.

    Raises BadInput if they cannot and model.shared_weights=on was asked for.
    """
    reason = ""
    if placement.weights:
        try:
            subprocess.run(
                [sys.executable, "-c", HOLDER, READER], check=True, capture_output=True, text=True, timeout=TRY_S
            )
        except subprocess.TimeoutExpired:
            reason = f"mapping GPU memory of another process took more than {TRY_S:.0f} s"
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if "Error" in line] or [str(error)]
            reason = f"mapping GPU memory of another process failed: {said[0]}"
    elif asked.model.shares_weights:
        reason = "engine and learner share no GPU of this machine"
    if reason and asked.model.shares_weights:
        raise BadInput(f"model.shared_weights=on: {reason}; leave it out")
    return reason
