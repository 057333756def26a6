"""liger-kernel's kernels, where it is installed: run by Triton's interpreter, compiled for absent GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
"""Shared memory a block may use, by compute capability (CUDA programming guide, table of technical specifications)."""


def rows(module: str, folder: Path, *arguments: str, **environment: str) -> list[dict[str, float]]:
    """Return the lines of a program of this folder. Its process starts Triton in another way."""
    pytest.importorskip("liger_kernel")
    command = [sys.executable, "-m", f"tests.learner.model.{module}", *arguments]
    environment |= {"TRITON_CACHE_DIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=os.environ | environment)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_fused_kernels_agree_with_plain_ones(tmp_path: Path) -> None:
    assert rows("interpreted_kernels", tmp_path, TRITON_INTERPRET="1")


def test_kernels_fit_the_gpus_shared_memory(tmp_path: Path) -> None:
    found = rows("compiled_kernels", tmp_path, *map(str, SHARED_KIB))
    assert {row["capability"] for row in found} == set(SHARED_KIB)
    for row in found:
        assert row["shared"] <= SHARED_KIB[int(row["capability"])] * 1024
