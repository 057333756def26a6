"""What only a card can show. Without one these tests are skipped; with one they take some ten minutes."""

import os
import subprocess
from dataclasses import replace

import pytest

from conf.catalogue import GPU_DTYPE
from launch.hardware.machine import Machine, detect


@pytest.fixture(scope="session", autouse=True)
def machine() -> Machine:
    """This machine, as if it had one card only."""
    found = detect()
    if not found.gpus:
        pytest.skip("no NVIDIA card here: nvidia-smi lists none")
    if not found.rates.get(GPU_DTYPE, 1.0):
        pytest.skip(f"{found.name} cannot compute in {GPU_DTYPE}")
    return replace(found, gpus=1)


def memory_used() -> int:
    """Bytes of the first card that may be used here that are taken, by whomever."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = ["nvidia-smi", f"--id={card}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20
