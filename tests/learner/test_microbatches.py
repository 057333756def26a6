from hypothesis import given
from hypothesis import strategies as st

from learner.microbatches import MicroBatch, Tokens, pack

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
    """What each predicting place has before it, and its target."""
    width = batch.rows.shape[1]
    found = []
    for place, target in zip(batch.places.tolist(), batch.targets.tolist(), strict=True):
        row, column = divmod(place, width)
        owner = int(batch.owners[row])
        prefix = batch.prefixes[owner, : int(batch.prefix_lengths[owner])].tolist()
        found.append((tuple(prefix + batch.rows[row, : column + 1].tolist()), target))
    return found


@given(sample_lists(), st.integers(1, 120), st.booleans())
def test_every_response_token_is_predicted_once_from_what_precedes_it(
    samples: list[Tokens], budget: int, share: bool
) -> None:
    batches = pack(samples, budget, share)
    order = [i for batch in batches for i in batch.samples]
    assert sorted(order) == [i for i, sample in enumerate(samples) if sample.response]
    expected = [
        (samples[i].prompt + samples[i].response[:k], token)
        for i in order
        for k, token in enumerate(samples[i].response)
    ]
    assert [pair for batch in batches for pair in contexts(batch)] == expected


@given(sample_lists(), st.integers(1, 120), st.booleans())
def test_budget_is_kept_but_for_single_samples(samples: list[Tokens], budget: int, share: bool) -> None:
    for batch in pack(samples, budget, share):
        assert batch.padded_tokens <= budget or len(batch.samples) == 1
        assert 0 < batch.tokens <= batch.padded_tokens


def test_prompts_are_shared_where_it_pays() -> None:
    prompt = tuple(range(1, 41))
    short = [Tokens(prompt, (5,) * 10)] * 8
    (batch,) = pack(short, 4096)
    assert batch.padded_tokens == 39 + 8 * 10
    long = [Tokens(prompt, (5,) * 400)] * 8
    assert all(batch.prefixes.numel() == 0 for batch in pack(long, 4096))
    assert all(batch.prefixes.numel() == 0 for batch in pack(short, 4096, share_prompts=False))
