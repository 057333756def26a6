"""The division of a batch among processes."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.learner.packing import Tokens, divide


def start_of_all(samples: list[Tokens]) -> tuple[int, ...]:
    """Return the shared start of all prompts."""
    shortest = min((sample.prompt for sample in samples), key=len, default=())
    starts = (shortest[:n] for n in range(len(shortest), -1, -1))
    return next(start for start in starts if all(sample.prompt[: len(start)] == start for sample in samples))


long_prompts = st.lists(st.integers(1, 3), min_size=1, max_size=40).map(tuple)
long_responses = st.lists(st.just(7), min_size=1, max_size=60).map(tuple)
groups = st.lists(
    st.tuples(long_prompts, st.lists(long_responses, min_size=1, max_size=8)), max_size=8, unique_by=lambda g: g[0]
)
processes = st.integers(1, 6)


def flatten(groups: list[tuple[tuple[int, ...], list[tuple[int, ...]]]]) -> list[Tokens]:
    return [Tokens(prompt, response) for prompt, responses in groups for response in responses]


def work(samples: list[Tokens], positions: list[int]) -> float:
    uses = Counter(sample.prompt for sample in samples)
    own = len(start_of_all(samples))
    return sum(len(samples[i].response) + (len(samples[i].prompt) - own) / uses[samples[i].prompt] for i in positions)


@given(groups, processes)
def test_processes_share_the_work_evenly(groups: list, processes: int):
    """Each sample has one process, no process is further from the mean than a sample, few prompts are on two."""
    samples = flatten(groups)
    parts = divide(samples, processes)
    assert len(parts) == processes
    assert [i for part in parts for i in part] == list(range(len(samples)))
    mean = work(samples, list(range(len(samples)))) / processes
    largest = max((work(samples, [i]) for i in range(len(samples))), default=0.0)
    assert all(abs(work(samples, part) - mean) <= largest + 1e-6 for part in parts)
    owners = [rank for rank, part in enumerate(parts) for _ in part]
    cuts = sum(a.prompt == b.prompt and o != p for (a, o), (b, p) in pairwise(zip(samples, owners, strict=True)))
    assert cuts <= processes - 1


def test_equal_groups_stay_whole():
    samples = flatten([((i,), [(7,) * 5] * 8) for i in range(8)])
    assert [len(part) for part in divide(samples, 4)] == [16] * 4
    assert sorted(map(len, divide([Tokens((1,), (2,))], 3))) == [0, 0, 1]
