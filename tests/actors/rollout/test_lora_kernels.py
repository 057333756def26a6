"""Block sizes of the LoRA kernels as vLLM itself finds and compiles them, for cards that are not there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from actors.rollout.vllm_settings import SHRINK, SLICES, write_kernel_sizes

SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
"""Shared memory a block may use, by compute capability (CUDA programming guide, table of technical specifications)."""

HIDDEN = (1024, 1536, 2048, 8960)
"""Inputs of projections of the paper's models."""


@pytest.fixture
def utils(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """vLLM's module that chooses sizes, on what it takes for an A40."""
    from vllm.lora.ops.triton_ops import utils

    monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A40-48Q")
    write_kernel_sizes(tmp_path, "NVIDIA A40-48Q")
    for cached in (utils.load_lora_op_config, utils.get_lora_op_configs):
        cached.cache_clear()
    yield utils
    for cached in (utils.load_lora_op_config, utils.get_lora_op_configs):
        cached.cache_clear()


@pytest.mark.parametrize("tokens", [1, 64, 127, 128, 4096])
@pytest.mark.parametrize("rank", [8, 64, 256])
def test_vllm_takes_the_sizes_for_every_step(utils: object, tokens: int, rank: int) -> None:
    for slices in SLICES:
        for hidden in HIDDEN:
            assert utils.get_lora_op_configs("shrink", 3, tokens, hidden, rank, slices) == SHRINK  # type: ignore[attr-defined]


def test_vllm_keeps_its_own_sizes_of_the_other_kernel(utils: object) -> None:
    assert utils.get_lora_op_configs("expand", 3, 64, 1536, 256, 1, True)["block_m"] == 64  # type: ignore[attr-defined]


@pytest.mark.slow
def test_kernels_compile_for_cards_within_their_shared_memory(tmp_path: Path) -> None:
    """In a process of its own, in which vLLM is told that Triton has a driver."""
    command = [sys.executable, "-m", "tests.actors.rollout.compiled_kernels", *map(str, SHARED_KIB)]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    print(*rows, sep="\n")
    assert len(rows) == len(SHARED_KIB) * 9
    for row in rows:
        assert 0 < row["shared"] <= SHARED_KIB[row["capability"]] * 1024
