"""Block sizes of the LoRA kernels as vLLM itself finds them, for a GPU that is not there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from actors.rollout.vllm_settings import SHRINK, SLICES, use_kernel_sizes, without_kernel_sizes

HIDDEN = (1024, 1536, 2048, 8960)
"""Inputs of projections of the paper's models."""


@pytest.fixture
def utils(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """vLLM's module that chooses sizes, on a supposed A40."""
    from vllm.lora.ops.triton_ops import utils

    monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", "")
    monkeypatch.delenv("VLLM_TUNED_CONFIG_FOLDER")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A40-48Q")
    for cached in (utils.load_lora_op_config, utils.get_lora_op_configs):
        cached.cache_clear()
    yield utils
    for cached in (utils.load_lora_op_config, utils.get_lora_op_configs):
        cached.cache_clear()


@pytest.mark.parametrize("tokens", [1, 64, 127, 128, 4096])
@pytest.mark.parametrize("rank", [8, 64, 256])
def test_vllm_takes_our_sizes(utils: object, tokens: int, rank: int) -> None:
    use_kernel_sizes("NVIDIA A40-48Q")
    for slices in SLICES:
        for hidden in HIDDEN:
            assert utils.get_lora_op_configs("shrink", 3, tokens, hidden, rank, slices) == SHRINK  # type: ignore[attr-defined]
    assert utils.get_lora_op_configs("expand", 3, 64, 1536, 256, 1, True)["block_m"] == 64  # type: ignore[attr-defined]


def test_sizes_are_vllms_for_long_steps(utils: object) -> None:
    """So they fit every GPU that vLLM's fit; of a short step vLLM's own are others."""
    own = [utils.get_lora_op_configs("shrink", 3, tokens, 1536, 256, 3) for tokens in (64, 128)]  # type: ignore[attr-defined]
    assert own[0] | SHRINK != own[0]
    assert own[1] | SHRINK == own[1]


def test_sizes_under_another_name_than_torchs_are_missed(utils: object) -> None:
    use_kernel_sizes("NVIDIA A40-48Q")
    assert not [*without_kernel_sizes()]
    utils.load_lora_op_config.cache_clear()  # type: ignore[attr-defined]
    os.environ.pop("VLLM_TUNED_CONFIG_FOLDER")
    use_kernel_sizes("GRID A40-48Q")
    (sentence,) = without_kernel_sizes()
    assert "NVIDIA A40-48Q" in sentence
