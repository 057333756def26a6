"""The plan's GPU memory of a learner against passes at full size, on tensors without content."""

import gc
import weakref
from typing import Any

import pytest
import torch
from peft import PeftModel

from conf.load import load
from conf.settings import changed
from learner.model.adapter import load_model
from learner.model.policy import Policy
from tests.gpu import test_kernels
from tests.learner.full_size import rows


@pytest.mark.long
@pytest.mark.parametrize(("recipe", "rank"), [("llama", 8), ("qwen3", 256)])  # without and with norms of heads
def test_a_peak_is_as_planned(recipe: str, rank: int) -> None:
    (row,) = rows((recipe,), (rank,))
    assert 0.97 < row["ratio"] < 1.05, row


SMALL = {
    "model.dtype": "bfloat16",
    "model.shape.vocab_size": 64,
    "model.shape.hidden_size": 16,
    "model.shape.intermediate_size": 16,
    "model.shape.num_hidden_layers": 2,
    "learner.tokens_per_microbatch": 2048,
}


def test_a_measurement_of_a_gpus_kernels_frees_its_model_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next measurement, or engine, has less memory."""
    made, build = weakref.WeakSet[Policy](), Policy.__init__

    def seen(policy: Policy, *given: Any, **named: Any) -> None:
        build(policy, *given, **named)
        made.add(policy)

    monkeypatch.setattr(Policy, "__init__", seen)
    monkeypatch.setattr(test_kernels, "CUDA", torch.device("cpu"))
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    gc.disable()
    try:
        test_kernels.measure(changed(load(["conf=r8_qwen3"]), SMALL), ())
        assert not made
    finally:
        gc.enable()


def test_a_gpus_plain_kernels_are_compared_without_computing_activations_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the comparison of `tests/gpu` would give them less memory than the fused ones need."""
    monkeypatch.setattr(PeftModel, "to", lambda model, _: model)  # there is no GPU
    config = changed(load(["conf=r8_qwen3"]), {"model.dtype": "bfloat16"})
    with test_kernels.only(config, ()), torch.device("meta"):
        assert not load_model(config, "", "cuda").is_gradient_checkpointing
