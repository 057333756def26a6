"""Models with one change that the learner does not follow: each is refused, whatever the size of its weights."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.learner.model import model_check
from microbudget_rl.learner.model.attention import attend
from microbudget_rl.learner.model.logprobs import Head
from microbudget_rl.learner.model.model_check import check_model
from tests.learner.helpers import bind, leaving_no_module
from tests.learner.model.families import BY_NAME, GEMMA_4, Family, adapt, build

pytestmark = pytest.mark.long

Change = Callable[[Any, pytest.MonkeyPatch], None]


def model(name: str, dtype: torch.dtype = torch.float32) -> Any:
    return adapt(build(BY_NAME[name])).get_base_model().to(dtype)


def packed(change: Callable[..., dict[str, Any]]) -> Change:
    """Change the arguments of packed attention."""

    def wrong(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, **given: Any) -> Any:
        given = given | {"query": query, "key": key, "value": value}
        return attend(module, attention_mask=mask, **(given | change(module, **given)))

    def apply(_: Any, patch: pytest.MonkeyPatch) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        patch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "packed", wrong)

    return apply


def batched(change: Callable[[Any], dict[str, Any]]) -> Change:
    """Change fields of the micro-batch."""
    own = model_check.hidden_states

    def wrong(base: Any, batch: Any) -> Tensor:
        return own(base, replace(batch, **change(batch)))

    return lambda _, patch: patch.setattr(model_check, "hidden_states", wrong)


def leaking(batch: Any) -> dict[str, Any]:
    """Make the first token of every row but the first the last of the previous row."""
    blocks = [replace(block, keys=block.keys.clone()) for block in batch.blocks]
    for before, block in zip(batch.blocks, blocks[1:], strict=False):
        block.keys[:, 0] = before.keys[-1, -1]
    return {"blocks": tuple(blocks)}


def headed(change: Callable[[Head], Head]) -> Change:
    own = model_check.head_of
    return lambda _, patch: patch.setattr(model_check, "head_of", lambda base: change(own(base)))


def biased(base: Any, patch: pytest.MonkeyPatch) -> None:
    bias = 0.03 * torch.randn(256, generator=torch.Generator().manual_seed(0))
    base.lm_head.bias = torch.nn.Parameter(bias.to(base.dtype))


def dropping(base: Any, patch: pytest.MonkeyPatch) -> None:
    base.model.layers[1].mlp.act_fn = torch.nn.Sequential(base.model.layers[1].mlp.act_fn, torch.nn.Dropout(0.1))


def without_q_norm(base: Any, patch: pytest.MonkeyPatch) -> None:
    own = model_check.hidden_states

    def wrong(base: Any, batch: Any) -> Tensor:
        attention = base.model.layers[1].self_attn
        norm, attention.q_norm = attention.q_norm, torch.nn.Identity()
        try:
            return own(base, batch)
        finally:
            attention.q_norm = norm

    patch.setattr(model_check, "hidden_states", wrong)


CHANGES: dict[str, tuple[str, Change]] = {
    "positions shifted": ("Qwen 3", batched(lambda batch: {"positions": torch.arange(len(batch.ids))})),
    "a token leaks": ("Qwen 3", batched(leaking)),
    "no q norm in one layer": ("Qwen 3", without_q_norm),
    "no window": ("Gemma 3, text", packed(lambda *_, **given: {"sliding_window": None})),
    "a window longer by one": (
        "Gemma 3, text",
        packed(lambda *_, sliding_window=None, **given: {"sliding_window": sliding_window and sliding_window + 1}),
    ),
    "attention scaled by 1.1": ("Llama 2, 3", packed(lambda *_, scaling, **given: {"scaling": 1.1 * scaling})),
    "keys of one head for all": ("Llama 2, 3", packed(lambda *_, key, **given: {"key": key[:, :1].expand_as(key)})),
    "no cap": ("Gemma 2", headed(lambda head: replace(head, cap=None))),
    "a head scaled by 1.05": ("Granite 3", headed(lambda head: replace(head, scale=1.05 * head.scale))),
    "a head with a bias": ("Llama 2, 3", biased),
    "dropout": ("Llama 2, 3", dropping),
}


def sound(name: str, scale: float, dtype: torch.dtype) -> Any:
    base = model(name, dtype)
    if name == "Gemma 2":  # without the cap of its attention, which is another mistake
        base.config.attn_logit_softcapping = None
        for layer in base.model.layers:
            layer.self_attn.attn_logit_softcapping = None
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return base


@pytest.mark.parametrize("scale", [1.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", CHANGES)
def test_a_mistake_is_refused(what: str, dtype: torch.dtype, scale: float, monkeypatch: pytest.MonkeyPatch):
    """Small weights make the model's distribution nearly uniform."""
    name, change = CHANGES[what]
    base = sound(name, scale, dtype)
    check_model(base)
    change(base, monkeypatch)
    with pytest.raises(BadInput, match=r"differ from transformers' by .* nats, rounding moves them by"):
        check_model(base)


@pytest.mark.parametrize(("scale", "refused"), [(10.0, False), (math.nan, True)])
def test_a_difference_in_bfloat16_alone_is_a_warning_unless_it_is_no_number(
    scale: float, refused: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    base = model("Llama 2, 3", torch.bfloat16)

    def wrong(_: Any, query: Tensor, **given: Any) -> dict[str, Any]:
        return {"query": scale * query if query.dtype is torch.bfloat16 else query}

    packed(wrong)(base, monkeypatch)
    with pytest.raises(BadInput) if refused else nullcontext():
        check_model(base)
    assert ("in float32 its first layers agree" in caplog.text) == (not refused)


def test_copies_of_the_first_layers_are_freed_at_once():
    """The learner's share of a GPU has no room for them beside a batch."""
    base = model("Llama 2, 3")
    with leaving_no_module():
        model_check.change_of(base, bind, base.device)
    bind(base)
    with leaving_no_module():
        check_model(base)


def test_only_the_first_layer_of_each_kind_is_copied():
    """Of ten, whose last two use the keys and values of the two before them."""
    deep = GEMMA_4 | {"num_hidden_layers": 10, "layer_types": [*4 * ["sliding_attention"], "full_attention"] * 2}
    base = adapt(build(Family("", "gemma4_text", "", deep))).get_base_model()
    check_model(base)
    assert len(model_check._sharp_part(base).model.layers) == 6


def test_attention_with_a_soft_cap_is_refused():
    with pytest.raises(BadInput, match="the learner lacks something"):
        check_model(model("Gemma 2"))


def test_the_model_is_left_as_it_was():
    base = model("Gemma 3, text", torch.bfloat16)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    window, layers = base.config.sliding_window, len(base.model.layers)
    check_model(base)
    after = base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (base.config.sliding_window, len(base.model.layers)) == (window, layers)
    assert not base.training
