import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.messages import Spans
from microbudget_rl.learner.packing import ENTRIES_PER_TOKEN, MicroBatch, Tokens, pack
from tests.learner.algorithm.test_division import start_of_all

ids = st.integers(1, 50)
prompts = st.lists(ids, min_size=1, max_size=12).map(tuple)
responses = st.lists(ids, max_size=9).map(tuple)


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Tokens]:
    """Return samples of a few problems, in any order, whose prompts may share a start."""
    start = draw(st.lists(ids, max_size=6).map(tuple))
    choices = draw(st.lists(prompts, min_size=1, max_size=4))
    pairs = draw(st.lists(st.tuples(st.sampled_from(choices), responses), max_size=24))
    return [Tokens(start + prompt, response, draw(given_spans(len(response)))) for prompt, response in pairs]


@st.composite
def given_spans(draw: st.DrawFn, length: int) -> Spans:
    """Return spans of a response, each empty or not, which begin after its first token."""
    edges = sorted(draw(st.lists(st.integers(1, max(length, 1)), max_size=4)))
    return tuple(pairwise(edges))[::2] if length else ()


def in_blocks(batch: MicroBatch) -> list[tuple[int, list[int]]]:
    """Return, for each token, its place in the output and the places that it sees, in padded blocks."""
    asked = []
    for block in batch.blocks:
        offsets = [0] * len(block.keys) if block.offsets is None else block.offsets.tolist()
        for queries, keys, offset in zip(block.queries.tolist(), block.keys.tolist(), offsets, strict=True):
            asked += [(query, keys[: offset + number + 1]) for number, query in enumerate(queries)]
    return [asked[place] for place in batch.output_places.tolist()]


def in_segments(batch: MicroBatch) -> list[tuple[int, list[int]]]:
    """Return the same without padding: the queries of a row are its last tokens."""
    segments = batch.segments
    places = segments.spread(torch.arange(batch.tokens)).tolist()
    asked = []
    queries, keys = (list(pairwise(ends.tolist())) for ends in (segments.query_ends, segments.key_ends))
    for (first, last), (start, end) in zip(queries, keys, strict=True):
        asked += [(query, places[start : end - (last - 1 - query)]) for query in range(first, last)]
    assert segments.longest_query == max(last - first for first, last in queries)
    assert segments.longest_key == max(end - start for start, end in keys)
    return asked


def in_whole_rows(batch: MicroBatch) -> list[tuple[int, list[int]]]:
    """Return the same in rows that begin with their sample."""
    return in_blocks(replace(batch, blocks=batch.whole, output_places=batch.whole_places))


def contexts(batch: MicroBatch, layout: Callable[[MicroBatch], list[tuple[int, list[int]]]]) -> Iterator[object]:
    """Yield the tokens that each predicting token sees, at consecutive positions, and its target."""
    asked = layout(batch)
    for place, target in zip(batch.predictors.tolist(), batch.targets.tolist(), strict=True):
        query, seen = asked[place]
        assert seen[-1] == query == place
        assert batch.positions[seen].tolist() == list(range(len(seen)))
        yield tuple(batch.ids[seen].tolist()), target


@pytest.mark.parametrize("layout", [in_blocks, in_segments, in_whole_rows])
@given(samples=sample_lists(), budget=st.integers(1, 120))
def test_every_sampled_token_is_predicted_once_from_its_context(
    layout: Callable[[MicroBatch], list[tuple[int, list[int]]]], samples: list[Tokens], budget: int
):
    batches = pack(samples, budget, whole=True)
    order = [i for batch in batches for i in batch.samples]
    assert sorted(order) == [i for i, sample in enumerate(samples) if sample.response]
    expected = [
        (samples[i].prompt + samples[i].response[:k], token)
        for i in order
        for k, token in enumerate(samples[i].response)
        if not any(start <= k < end for start, end in samples[i].given)
    ]
    assert [pair for batch in batches for pair in contexts(batch, layout)] == expected


@given(sample_lists(), st.integers(1, 120), st.booleans())
def test_micro_batches_keep_the_budget_and_repeat_nothing(samples: list[Tokens], budget: int, whole: bool):
    shared = len(start_of_all(samples))
    for batch in pack(samples, budget, whole):
        rows = sum(len(samples[i].prompt) + len(samples[i].response) - 1 for i in batch.samples)
        assert not whole or rows <= ENTRIES_PER_TOKEN * budget or len(batch.samples) == 1
        assert (batch.tokens <= budget and batch.entries <= ENTRIES_PER_TOKEN * budget) or len(batch.samples) == 1
        members = [samples[i] for i in batch.samples]
        prompts = {sample.prompt for sample in members}
        responses = sum(len(sample.response) - 1 for sample in members)
        assert batch.tokens == shared + sum(len(prompt) - shared for prompt in prompts) + responses
        if all(len(sample.response) <= len(sample.prompt) for sample in members):  # each piece queries once
            assert sum(len(block.queries) for block in batch.blocks) == len(batch.segments.pieces)


@pytest.mark.parametrize(("longest", "most"), [(48, 0.09), (512, 0.05), (4096, 0.05)])
def test_padding_stays_small_and_even(longest: int, most: float):
    """Groups of 8 whose lengths spread over a factor of ten. Linear layers see no padding at all, attention little, and
    it repeats all tokens about equally often. Short responses pad queries too, but there are few.
    """
    rng = random.Random(longest)
    samples = [
        Tokens((problem,) * rng.randint(20, 120), (7,) * int(longest * 10 ** -rng.random()))
        for problem in range(16)
        for _ in range(8)
    ]
    batches = pack(samples, 8192)
    rows, padded = (sum(getattr(batch, name) for batch in batches) for name in ("entries", "padded_entries"))
    assert 1 - rows / padded < most
    for batch in batches:
        uses = Counter(token for block in batch.blocks for token in block.keys.flatten().tolist())
        padding = 2 * (batch.padded_entries - batch.entries) // batch.tokens + 1
        assert max(uses.values()) <= 8 + 1 + padding


@pytest.mark.parametrize("window", [None, 1, 3, 9])
def test_every_query_sees_something(window: int | None):
    """A query of padding that saw nothing would make its gradient NaN."""
    (batch,) = pack([Tokens((1,) * 12, (7,) * n) for n in (2, 3, 5, 12)] + [Tokens((2,) * 11, (7, 7))], 100)
    for block in batch.blocks:
        seen = block.seen(window)
        assert seen is None or seen.any(dim=-1).all()
