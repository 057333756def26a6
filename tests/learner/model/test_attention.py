"""Attention over packed rows in padded blocks, and the start's comparison of a GPU's kernel with them."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from microbudget_rl.learner.model.attention import attend, attend_unpadded, unpadded_serves
from microbudget_rl.learner.packing import Tokens, pack
from tests.learner.test_packing import sample_lists

pytestmark = pytest.mark.long

HEADS, KV_HEADS, SIZE = 4, 2, 8


@pytest.mark.parametrize(("size", "dtype"), [(SIZE, torch.float32), (512, torch.bfloat16)])
@settings(max_examples=25)
@given(rows=sample_lists().filter(lambda rows: any(row.response for row in rows)))
def test_no_gradient_reaches_a_token_through_padding(size: int, dtype: torch.dtype, rows: list[Tokens]):
    """Padding repeats tokens of other samples, but only tokens of its own row move a row's output."""
    (batch,) = pack(rows, 1000)
    queries, keys, values = (
        torch.randn(1, heads, batch.tokens, size, dtype=dtype) for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    values.requires_grad_()
    first = slice(0, len(rows[batch.samples[0]].prompt) + len(rows[batch.samples[0]].response) - 1)
    layout = {"blocks": batch.blocks, "output_places": batch.output_places}
    output, _ = attend(nn.Module(), queries, keys, values, None, **layout, scaling=1.0)  # type: ignore[arg-type]
    unpadded, _ = attend_unpadded(  # float32 and large heads go to the blocks
        nn.Module(), queries, keys, values, None, **layout, segments=batch.segments, scaling=1.0
    )
    assert torch.equal(unpadded, output)
    output[:, first].sum().backward()
    assert values.grad is not None
    assert not values.grad[:, :, first.stop :].any()


class Wrong(torch.autograd.Function):
    """The identity, whose gradient is one tenth too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 1.1 * gradient


def kernel(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, key_ends: Tensor, *_: int, **given: Any) -> Tensor:
    """torch's kernel for rows of any length as its documentation describes it."""
    rows = []
    for (start, end), (first, last) in zip(pairwise(ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        q, k, v = (x.float().transpose(0, 1) for x in (query[start:end], key[first:last], value[first:last]))
        behind = torch.arange(last - first - (end - start), last - first)[:, None] - torch.arange(last - first)
        window = given["window_size"][0]
        mask = (behind >= 0) & ((behind <= window) if window >= 0 else True)
        rows.append(scaled_dot_product_attention(q, k, v, mask, scale=given["scale"], enable_gqa=True).transpose(0, 1))
    return torch.cat(rows).to(query.dtype)


@pytest.mark.parametrize("wrong", [None, 0, 1, 2, "output"])
def test_a_kernel_with_a_wrong_output_or_gradient_is_not_used(wrong: int | str | None, monkeypatch: pytest.MonkeyPatch):
    def changed(*inputs: Any, **given: Any) -> Tensor:
        inputs = tuple(Wrong.apply(x) if number == wrong else x for number, x in enumerate(inputs))
        return kernel(*inputs, **given) * (1.1 if wrong == "output" else 1.0)

    monkeypatch.setattr("microbudget_rl.learner.model.attention.varlen_attn", changed)
    shape = SimpleNamespace(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=16)
    assert unpadded_serves(shape, torch.device("cpu")) is (wrong is None)
