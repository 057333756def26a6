"""Attention over packed rows, in padded blocks and without padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from learner.examples import Tokens
from learner.model import attention
from learner.model.attention import attend, attend_unpadded, unpadded_serves
from learner.packing import MicroBatch, pack

HEADS, KV_HEADS, SIZE = 4, 2, 8


def documented(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """`torch.nn.attention.varlen.varlen_attn`, which needs a card, by its documentation: row by row, the mask aligned
    to the last query and the last key, with keys from window_size[0] to the left of a query, -1 for all, to itself.
    """
    assert enable_gqa
    assert window_size[1] == 0
    assert query_ends.dtype == key_ends.dtype == torch.int32
    outputs = []
    lengths = [ends.diff().tolist() for ends in (query_ends, key_ends)]
    assert [max(sizes) for sizes in lengths] == [longest_query, longest_key]
    rows = zip(
        *(x.split(sizes) for x, sizes in ((query, lengths[0]), (key, lengths[1]), (value, lengths[1]))), strict=True
    )
    for q, k, v in rows:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        distance = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))
        seen = (distance >= 0) & ((distance <= window_size[0]) | (window_size[0] < 0))
        scores = torch.einsum("qhd,khd->hqk", q.float(), k.float()) * scale
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v.float()).to(q.dtype))
    return torch.cat(outputs)


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", documented)


def passes(attend: object, batch: MicroBatch, dtype: torch.dtype, window: int | None) -> list[Tensor]:
    """The output, and the gradients of query, key and value for some loss."""
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(1, heads, batch.tokens, SIZE, generator=generator).to(dtype).requires_grad_()
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    layout = {"blocks": batch.blocks, "output_places": batch.output_places, "segments": batch.segments}
    output, _ = attend(nn.Module(), *leaves, None, **layout, scaling=0.3, sliding_window=window)  # type: ignore[operator]
    (output * torch.randn(output.shape, generator=generator)).sum().backward()
    return [output.detach().float(), *(leaf.grad.float() for leaf in leaves if leaf.grad is not None)]


samples = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=4)), min_size=1, max_size=4
)


def tokens_of(shapes: list, shared: int) -> list[Tokens]:
    """Samples of problems whose prompts begin alike."""
    starts = [(9,) * shared + (number,) * prompt for number, (prompt, _) in enumerate(shapes)]
    return [Tokens(start, (7,) * n) for start, (_, ends) in zip(starts, shapes, strict=True) for n in ends]


@settings(max_examples=25)
@given(samples, st.sampled_from([None, 1, 3, 40]), st.integers(8, 80), st.integers(0, 5))
def test_without_padding_it_is_the_same(shapes: list, window: int | None, budget: int, shared: int) -> None:
    """Values and gradients; in bfloat16 what the kernel rounds is less than what the blocks round."""
    for batch in pack(tokens_of(shapes, shared), budget):
        found = passes(attend_unpadded, batch, torch.bfloat16, window)
        expected = passes(attend, batch, torch.bfloat16, window)
        assert len(found) == 4
        for one, other in zip(found, expected, strict=True):
            assert (one - other).abs().max() <= 0.03 * (other.abs().max() + 1.0)


def test_float32_is_left_to_the_blocks() -> None:
    (batch,) = pack([Tokens((1, 2, 3), (4,) * n) for n in (5, 2)], 100)
    for one, other in zip(*(passes(way, batch, torch.float32, None) for way in (attend_unpadded, attend)), strict=True):
        assert torch.equal(one, other)


def test_segments_are_the_rows_and_each_token_asks_once() -> None:
    (batch,) = pack(
        [Tokens((1, 2, 3), (4, 5, 6)), Tokens((1, 2, 3), (7, 8)), Tokens((9,), (1,)), Tokens((1, 2, 3), (4,))], 99
    )
    segments = batch.segments
    assert segments.query_ends.tolist() == [0, 5, 6, 7]
    assert segments.spread(batch.ids).tolist() == [1, 2, 3, 4, 5, 1, 2, 3, 7, 9]
    assert segments.key_ends.tolist() == [0, 5, 9, 10]
    assert sum(segments.pieces) == batch.tokens


def test_what_prompts_begin_with_is_one_segment_of_all() -> None:
    (batch,) = pack([Tokens((5, 6, 1), (4, 4)), Tokens((5, 6, 1), (7, 7)), Tokens((5, 6, 2), (8, 8))], 99)
    segments = batch.segments
    assert batch.ids.tolist() == [5, 6, 1, 4, 7, 2, 8]
    assert batch.positions.tolist() == [0, 1, 2, 3, 3, 2, 3]
    assert segments.query_ends.tolist() == [0, 4, 5, 7]
    assert segments.spread(batch.ids).tolist() == [5, 6, 1, 4, 5, 6, 1, 7, 5, 6, 2, 8]


@settings(max_examples=25)
@given(samples, st.integers(0, 5))
def test_no_gradient_reaches_a_token_through_padding(shapes: list, shared: int) -> None:
    """Padding is any tokens: only those of a row before its end may move its outputs."""
    rows = tokens_of(shapes, shared)
    (batch,) = pack(rows, 1000)
    values = torch.randn(1, KV_HEADS, batch.tokens, SIZE, requires_grad=True)
    keys, queries = torch.randn(1, KV_HEADS, batch.tokens, SIZE), torch.randn(1, HEADS, batch.tokens, SIZE)
    first = slice(0, len(rows[batch.samples[0]].prompt) + len(rows[batch.samples[0]].response) - 1)
    output, _ = attend(
        nn.Module(), queries, keys, values, None, blocks=batch.blocks, output_places=batch.output_places, scaling=1.0
    )
    output[:, first].sum().backward()
    assert values.grad is not None
    assert not values.grad[:, :, first.stop :].any()


def test_it_is_not_tried_without_a_card() -> None:
    assert not unpadded_serves(None, torch.device("cpu"))
