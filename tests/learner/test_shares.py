from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from learner.batching import Tokens
from learner.shares import share_out

prompts = st.lists(st.integers(1, 3), min_size=1, max_size=40).map(tuple)
responses = st.lists(st.just(7), min_size=1, max_size=60).map(tuple)
groups = st.lists(st.tuples(prompts, st.lists(responses, min_size=1, max_size=8)), max_size=8, unique_by=lambda g: g[0])
ranks = st.integers(1, 6)


def flatten(groups: list[tuple[tuple[int, ...], list[tuple[int, ...]]]]) -> list[Tokens]:
    return [Tokens(prompt, response) for prompt, responses in groups for response in responses]


def work(samples: list[Tokens], positions: list[int]) -> float:
    uses = Counter(sample.prompt for sample in samples)
    return sum(len(samples[i].response) + len(samples[i].prompt) / uses[samples[i].prompt] for i in positions)


@given(groups, ranks)
def test_every_sample_has_one_rank(groups: list, ranks: int) -> None:
    samples = flatten(groups)
    shares = share_out(samples, ranks)
    assert len(shares) == ranks
    assert [i for share in shares for i in share] == list(range(len(samples)))


@given(groups, ranks)
def test_no_rank_is_further_from_the_mean_than_a_sample(groups: list, ranks: int) -> None:
    samples = flatten(groups)
    everything = range(len(samples))
    mean = work(samples, list(everything)) / ranks
    largest = max((work(samples, [i]) for i in everything), default=0.0)
    for share in share_out(samples, ranks):
        assert abs(work(samples, share) - mean) <= largest + 1e-6


@given(groups, ranks)
def test_few_prompts_are_on_two_ranks(groups: list, ranks: int) -> None:
    samples = flatten(groups)
    owners = [rank for rank, share in enumerate(share_out(samples, ranks)) for _ in share]
    cuts = sum(a.prompt == b.prompt and o != p for (a, o), (b, p) in pairwise(zip(samples, owners, strict=True)))
    assert cuts <= ranks - 1


def test_equal_groups_stay_whole() -> None:
    samples = flatten([((i,), [(7,) * 5] * 8) for i in range(8)])
    assert [len(share) for share in share_out(samples, 4)] == [16] * 4


def test_more_ranks_than_samples_leave_some_idle() -> None:
    assert sorted(map(len, share_out([Tokens((1,), (2,))], 3))) == [0, 0, 1]
