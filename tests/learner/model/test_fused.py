"""Fused kernels are used only where they exist and agree with the plain ones."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from microbudget_rl.actors.models.families import FUSED
from microbudget_rl.learner.model.model_check import delta_rule_serves, fuse

pytestmark = pytest.mark.long

CPU = torch.device("cpu")


@pytest.fixture
def base(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    rotary = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", rotary)  # restored at the end
    return AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")


def kernels(factor: float) -> Callable[..., None]:
    """Return a stand-in for liger-kernel's patch of a Llama: a new rotary function, and norms times a factor."""
    rotary = modeling_llama.apply_rotary_pos_emb

    def apply(model: Any, cross_entropy: bool, fused_linear_cross_entropy: bool) -> None:
        assert (cross_entropy, fused_linear_cross_entropy) == (False, False)
        modeling_llama.apply_rotary_pos_emb = lambda *args, **kwargs: rotary(*args, **kwargs)
        for module in model.modules():
            if isinstance(module, modeling_llama.LlamaRMSNorm):
                module.forward = lambda x, own=module: factor * type(own).forward(own, x)

    return apply


@pytest.mark.parametrize(
    ("family", "factor", "said"),
    [
        ("llama", 1.0, ""),
        ("llama", 1.01, "change log-probabilities by"),
        ("olmo2", 1.0, "olmo2"),
        ("llama", None, "cannot be imported"),
    ],
)
def test_only_correct_kernels_are_used(
    family: str, factor: float | None, said: str, base: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    module = ModuleType("monkey_patch")
    if factor:
        module.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": kernels(factor)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", module if factor else None)
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    rotary, ids = modeling_llama.apply_rotary_pos_emb, torch.arange(20)[None]
    before = base(input_ids=ids).logits
    base.config.model_type = family
    assert fuse(base, CPU) == (not said)
    assert said in caplog.text
    assert (modeling_llama.apply_rotary_pos_emb is rotary) == bool(said)
    torch.testing.assert_close(base(input_ids=ids).logits, before)


def test_a_delta_rule_without_its_kernels_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: Any):
    monkeypatch.setitem(sys.modules, "fla", None)
    assert [delta_rule_serves(family) for family in ("llama", "qwen3_5_text")] == [True, False]
    assert [record.args[0] for record in caplog.records] == ["qwen3_5_text"]


def test_families_are_liger_kernels_own():
    known = pytest.importorskip("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    assert known.keys() >= set(FUSED)
