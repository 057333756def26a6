"""Tests that need a GPU. Without one they are skipped; with one they take about half an hour."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from microbudget_rl.conf.catalogue import GPU_DTYPE
from microbudget_rl.launch.hardware.machine import Machine, detect

ORDER = ("test_kernels", "test_sharing", "test_shared_weights", "test_quickstart")
"""Modules in their order: each needs what those before it test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.parent == here else -1)


@pytest.fixture(scope="session", autouse=True)
def machine() -> Machine:
    """Return this machine with one GPU."""
    found = detect()
    if not found.gpus:
        pytest.skip("no NVIDIA GPU here: nvidia-smi lists none")
    if not found.rates.get(GPU_DTYPE, 1.0):
        pytest.skip(f"{found.name} cannot compute in {GPU_DTYPE}")
    return replace(found, gpus=1)


def first_gpu() -> str:
    """Return the index or name of the first GPU that this process may use."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def memory_used() -> int:
    """Return the used bytes of the first GPU that this process may use, whoever uses them."""
    query = ["nvidia-smi", f"--id={first_gpu()}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20
