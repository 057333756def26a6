"""The plan's GPU memory of a learner against passes at full size, on tensors without content."""

import pytest
import torch
from peft import PeftModel

from conf.load import load
from conf.settings import changed
from learner.model.adapter import load_model
from tests.gpu import test_kernels
from tests.learner.full_size import rows
from tests.learner.helpers import bind, leaving_no_module


@pytest.mark.long
@pytest.mark.parametrize(("recipe", "rank"), [("llama", 8), ("qwen3", 256)])  # without and with norms of heads
def test_a_peak_is_as_planned(recipe: str, rank: int) -> None:
    (row,) = rows((recipe,), (rank,))
    assert 0.97 < row["ratio"] < 1.05, row


def test_a_measurement_of_a_gpus_kernels_frees_its_model_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next measurement, or engine, has less memory."""
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    config = changed(load(["conf=r8_qwen3"]), {f"model.shape.{name}": size for name, size in sizes.items()})
    monkeypatch.setattr(test_kernels, "load_model", lambda *given: bind(load_model(*given)))
    monkeypatch.setattr(test_kernels, "CUDA", torch.device("cpu"))
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    with leaving_no_module():
        test_kernels.measure(changed(config, {"model.dtype": "bfloat16", "learner.tokens_per_microbatch": 2048}), ())


def test_plain_kernels_of_a_gpu_are_measured_without_recomputing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the comparison of `tests/gpu` would give them less memory than the fused ones need."""
    monkeypatch.setattr(PeftModel, "to", lambda model, _: model)  # there is no GPU
    config = changed(load(["conf=r8_qwen3"]), {"model.dtype": "bfloat16"})
    with test_kernels.only(config, ()), torch.device("meta"):
        assert not load_model(config, "", "cuda").is_gradient_checkpointing
