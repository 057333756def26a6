"""The plan's GPU memory of a learner against passes at full size, on tensors without content."""

import pytest
import torch
from peft import PeftModel

from conf.load import load
from conf.settings import changed
from learner.model.adapter import load_model
from tests.gpu.test_kernels import only
from tests.learner.full_size import rows


@pytest.mark.long
@pytest.mark.parametrize(("recipe", "rank"), [("llama", 8), ("qwen3", 256)])  # without and with norms of heads
def test_a_peak_is_as_planned(recipe: str, rank: int) -> None:
    (row,) = rows((recipe,), (rank,))
    assert 0.97 < row["ratio"] < 1.05, row


def test_a_gpus_plain_kernels_are_compared_without_computing_activations_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the comparison of `tests/gpu` would give them less memory than the fused ones need."""
    monkeypatch.setattr(PeftModel, "to", lambda model, _: model)  # there is no GPU
    config = changed(load(["conf=r8_qwen3"]), {"model.dtype": "bfloat16"})
    with only(config, ()), torch.device("meta"):
        assert not load_model(config, "", "cuda").is_gradient_checkpointing
