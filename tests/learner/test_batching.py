import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.batching import ROWS_PER_TOKEN, MicroBatch, Tokens, pack

ids = st.integers(1, 50)
prompts = st.lists(ids, min_size=1, max_size=12).map(tuple)
responses = st.lists(ids, max_size=9).map(tuple)


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Tokens]:
    """Samples of a few problems, in any order."""
    choices = draw(st.lists(prompts, min_size=1, max_size=4))
    pairs = draw(st.lists(st.tuples(st.sampled_from(choices), responses), max_size=24))
    return [Tokens(prompt, response) for prompt, response in pairs]


def contexts(batch: MicroBatch) -> list[tuple[tuple[int, ...], int]]:
    """What each predicting place sees in attention, at which positions, and its target."""
    rows = [row.tolist() for block in batch.blocks for row in block]
    starts, start = [], 0
    for row in rows:
        starts.append(start)
        start += len(row)
    found = []
    for place, target in zip(batch.places.tolist(), batch.targets.tolist(), strict=True):
        home = int(batch.homes[place])
        number = max(n for n, start in enumerate(starts) if start <= home)
        seen = rows[number][: home - starts[number] + 1]
        assert seen[-1] == place
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
        assert (batch.tokens <= budget and batch.rows <= ROWS_PER_TOKEN * budget) or len(batch.samples) == 1


@given(sample_lists(), st.integers(1, 120))
def test_no_token_is_there_twice_within_a_micro_batch(samples: list[Tokens], budget: int) -> None:
    for batch in pack(samples, budget):
        prompts = {samples[i].prompt for i in batch.samples}
        assert batch.tokens == sum(map(len, prompts)) + sum(len(samples[i].response) - 1 for i in batch.samples)


@pytest.mark.parametrize("longest", [48, 512, 4096])
def test_padding_stays_below_five_percent_on_mixed_lengths(longest: int) -> None:
    """Groups of 8 whose lengths spread over a factor of ten. This is attention; linear layers see no padding at all."""
    rng = random.Random(longest)
    samples = [
        Tokens((problem,) * rng.randint(20, 120), (7,) * int(longest * 10 ** -rng.random()))
        for problem in range(16)
        for _ in range(8)
    ]
    batches = pack(samples, 8192)
    rows, padded = (sum(getattr(batch, name) for batch in batches) for name in ("rows", "padded_rows"))
    assert 1 - rows / padded < 0.05
