"""Tests that need a GPU. Without one they are skipped; with one they take about half an hour."""

import os
import subprocess
from dataclasses import replace

import pytest

from microbudget_rl.conf.catalogue import GPU_DTYPE
from microbudget_rl.launch.hardware.machine import Machine, detect


@pytest.fixture(scope="session", autouse=True)
def machine() -> Machine:
    """Return this machine with one GPU."""
    found = detect()
    if not found.gpus:
        pytest.skip("no NVIDIA GPU here: nvidia-smi lists none")
    if not found.rates.get(GPU_DTYPE, 1.0):
        pytest.skip(f"{found.name} cannot compute in {GPU_DTYPE}")
    return replace(found, gpus=1)


def memory_used() -> int:
    """Return the used bytes of the first GPU that this process may use, whoever uses them."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["nvidia-smi", f"--id={first}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20
