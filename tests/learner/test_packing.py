import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.examples import Tokens
from learner.packing import ENTRIES_PER_TOKEN, MicroBatch, pack
from tests.learner.test_examples import start_of_all

ids = st.integers(1, 50)
prompts = st.lists(ids, min_size=1, max_size=12).map(tuple)
responses = st.lists(ids, max_size=9).map(tuple)


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Tokens]:
    """Samples of a few problems, in any order, whose prompts may begin alike."""
    start = draw(st.lists(ids, max_size=6).map(tuple))
    choices = draw(st.lists(prompts, min_size=1, max_size=4))
    pairs = draw(st.lists(st.tuples(st.sampled_from(choices), responses), max_size=24))
    return [Tokens(start + prompt, response) for prompt, response in pairs]


def contexts(batch: MicroBatch) -> list[tuple[tuple[int, ...], int]]:
    """What each predicting place sees in attention, at which positions, and its target."""
    asked = [
        (query, keys, offset + number)
        for block in batch.blocks
        for queries, keys, offset in zip(
            block.queries.tolist(),
            block.keys.tolist(),
            [0] * len(block.keys) if block.offsets is None else block.offsets.tolist(),
            strict=True,
        )
        for number, query in enumerate(queries)
    ]
    found = []
    for place, target in zip(batch.predictors.tolist(), batch.targets.tolist(), strict=True):
        query, keys, last = asked[int(batch.output_places[place])]
        seen = keys[: last + 1]
        assert seen[-1] == query == place
        assert batch.positions[seen].tolist() == list(range(len(seen)))
        found.append((tuple(batch.ids[seen].tolist()), target))
    return found


@given(sample_lists(), st.integers(1, 120))
def test_every_response_token_is_predicted_once_from_what_precedes_it(samples: list[Tokens], budget: int) -> None:
    batches = pack(samples, budget)
    order = [i for batch in batches for i in batch.samples]
    assert sorted(order) == [i for i, sample in enumerate(samples) if sample.response]
    expected = [
        (samples[i].prompt + samples[i].response[:k], token)
        for i in order
        for k, token in enumerate(samples[i].response)
    ]
    assert [pair for batch in batches for pair in contexts(batch)] == expected


@given(sample_lists(), st.integers(1, 120))
def test_budget_is_kept_but_for_single_samples(samples: list[Tokens], budget: int) -> None:
    for batch in pack(samples, budget):
        assert (batch.tokens <= budget and batch.entries <= ENTRIES_PER_TOKEN * budget) or len(batch.samples) == 1


@given(sample_lists(), st.integers(1, 120))
def test_no_token_is_there_twice_within_a_micro_batch(samples: list[Tokens], budget: int) -> None:
    shared = len(start_of_all(samples))
    for batch in pack(samples, budget):
        prompts = {samples[i].prompt for i in batch.samples}
        responses = sum(len(samples[i].response) - 1 for i in batch.samples)
        assert batch.tokens == shared + sum(len(prompt) - shared for prompt in prompts) + responses


@pytest.mark.parametrize(("longest", "share"), [(48, 0.09), (512, 0.05), (4096, 0.05)])
def test_padding_stays_small_on_mixed_lengths(longest: int, share: float) -> None:
    """Groups of 8 whose lengths spread over a factor of ten. This is attention; linear layers see no padding at all.
    Of responses that are short beside their prompts, queries are padded too, but there are few.
    """
    rng = random.Random(longest)
    samples = [
        Tokens((problem,) * rng.randint(20, 120), (7,) * int(longest * 10 ** -rng.random()))
        for problem in range(16)
        for _ in range(8)
    ]
    batches = pack(samples, 8192)
    rows, padded = (sum(getattr(batch, name) for batch in batches) for name in ("entries", "padded_entries"))
    assert 1 - rows / padded < share


@given(sample_lists(), st.integers(1, 120))
def test_short_responses_do_not_ask_for_their_prompt(samples: list[Tokens], budget: int) -> None:
    """What precedes a response asks once for all that it precedes, and nothing of it does again."""
    for batch in pack(samples, budget):
        if all(len(samples[i].response) <= len(samples[i].prompt) for i in batch.samples):
            assert sum(len(block.queries) for block in batch.blocks) == len(batch.segments.pieces)


@pytest.mark.parametrize("window", [None, 1, 3, 9])
def test_every_query_sees_something(window: int | None) -> None:
    """Of padding too: what sees nothing is not a number, and neither is its gradient."""
    (batch,) = pack([Tokens((1,) * 12, (7,) * n) for n in (2, 3, 5, 12)] + [Tokens((2,) * 11, (7, 7))], 100)
    for block in batch.blocks:
        seen = block.seen(window)
        assert seen is None or seen.any(dim=-1).all()


@pytest.mark.parametrize("longest", [48, 512, 4096])
def test_padding_goes_through_all_tokens(longest: int) -> None:
    """Besides those of its samples and of padding spread evenly, no token is in the blocks."""
    rng = random.Random(longest)
    samples = [Tokens((1,) * 20, (7,) * int(longest * 10 ** -rng.random())) for _ in range(8)]
    for batch in pack(samples, 8192):
        uses = Counter(token for block in batch.blocks for token in block.keys.flatten().tolist())
        padding = 2 * (batch.padded_entries - batch.entries) // batch.tokens + 1
        assert max(uses.values()) <= len(batch.samples) + 1 + padding
        assert max(uses[token] for token in range(20, batch.tokens)) <= 1 + padding
