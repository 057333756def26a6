"""Fused kernels: which models get them, and that wrong ones are not used. They need a card: these are stand-ins."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from learner.model.fused import FAMILIES, fuse

CPU = torch.device("cpu")


@pytest.fixture
def base(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Install a liger-kernel whose way with a Llama is this."""
    monkeypatch.setattr(
        modeling_llama, "apply_rotary_pos_emb", modeling_llama.apply_rotary_pos_emb
    )  # put back at the end

    def install(apply: Callable[..., None]) -> None:
        module = ModuleType("liger_kernel.transformers.monkey_patch")
        module.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": apply}  # type: ignore[attr-defined]
        for name in ("liger_kernel", "liger_kernel.transformers"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


def norms(factor: float) -> Callable[..., None]:
    """Norms in another order of operations, times a factor, and a rotary embedding like transformers'."""
    own = modeling_llama.apply_rotary_pos_emb

    def apply(model: Any, cross_entropy: bool, fused_linear_cross_entropy: bool) -> None:
        assert not cross_entropy
        assert not fused_linear_cross_entropy
        modeling_llama.apply_rotary_pos_emb = lambda *args, **kwargs: own(*args, **kwargs)
        for module in model.modules():
            if isinstance(module, modeling_llama.LlamaRMSNorm):
                module.forward = forward(module)

    def forward(norm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(x: torch.Tensor) -> torch.Tensor:
            wide = x.float()
            size = (wide.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
            found: torch.Tensor = (factor * norm.weight * (wide / size)).to(x.dtype)
            return found

        return run

    return apply


def test_a_model_gets_kernels_that_compute_the_same(base: Any, liger: Callable[[Callable[..., None]], None]) -> None:
    ids = torch.arange(20)[None]
    before = base(input_ids=ids).logits
    liger(norms(1.0))
    assert fuse(base, CPU)
    assert "forward" in vars(base.model.norm)
    torch.testing.assert_close(base(input_ids=ids).logits, before)


def test_wrong_kernels_are_not_used(
    base: Any, liger: Callable[[Callable[..., None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    rotary, before = modeling_llama.apply_rotary_pos_emb, base(input_ids=torch.arange(20)[None]).logits
    liger(norms(1.01))
    assert not fuse(base, CPU)
    assert "fused ones change log-probabilities by" in caplog.text
    assert modeling_llama.apply_rotary_pos_emb is rotary
    assert torch.equal(base(input_ids=torch.arange(20)[None]).logits, before)


def test_a_model_without_kernels_of_its_family_keeps_its_own(
    base: Any,
    liger: Callable[[Callable[..., None]], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    assert not fuse(base, CPU)
    assert "liger-kernel" in caplog.text
    liger(norms(1.0))
    base.config.model_type = "olmo2"
    assert not fuse(base, CPU)
    assert "olmo2" in caplog.text


def test_families_are_liger_kernels_own() -> None:
    known = pytest.importorskip("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    assert known.keys() >= set(FAMILIES)
