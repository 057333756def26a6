from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.learner.advantages import group_advantages, likelihood_rewards
from microbudget_rl.learner.packing import Tokens, divide

KINDS = ["group", "mean_only", "leave_one_out"]
rewards_lists = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0, 1.2]), min_size=1, max_size=16)


def reference(rewards: list[float], masked: list[bool], kind: str) -> list[float]:
    verified = [reward for reward, out in zip(rewards, masked, strict=True) if not out]
    expected = []
    for number, (reward, out) in enumerate(zip(rewards, masked, strict=True)):
        others = [r for i, r in enumerate(rewards) if not masked[i] and i != number]
        if out or len(set(verified)) < 2:
            expected.append(0.0)
        elif kind == "leave_one_out":
            expected.append(reward - sum(others) / len(others))
        else:
            mean = sum(verified) / len(verified)
            deviation = (sum((r - mean) ** 2 for r in verified) / (len(verified) - 1)) ** 0.5
            expected.append((reward - mean) / (deviation + 1e-6 if kind == "group" else 1.0))
    return expected


@given(rewards_lists, st.data(), st.sampled_from(KINDS))
def test_advantages_follow_their_formula(rewards: list[float], data: st.DataObject, kind: str) -> None:
    masked = data.draw(st.lists(st.booleans(), min_size=len(rewards), max_size=len(rewards)))
    got = group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.tensor(masked), kind)
    assert got.tolist() == pytest.approx(reference(rewards, masked, kind), abs=1e-10)


@given(st.integers(1, 64), st.sampled_from([0.1, 0.2, 1.2, 0.7]), st.sampled_from(KINDS))
def test_equal_rewards_have_exactly_no_advantage(count: int, reward: float, kind: str) -> None:
    rewards = torch.full((count,), reward, dtype=torch.float64)
    assert group_advantages(rewards, torch.zeros(count, dtype=torch.bool), kind).tolist() == [0.0] * count


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([-0.4, 0.0, 0.2])), min_size=2, max_size=16), st.data())
def test_likelihood_divides_the_accuracy_alone_by_its_mean(rows: list[tuple[bool, float]], data: st.DataObject) -> None:
    """The reward is 0.5 · accuracy + the rest; the size of an advantage keeps its bound."""
    out = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    kept = [row for row, masked in zip(rows, out, strict=True) if not masked]
    right, rest = (sum(column) / len(kept) for column in zip(*kept, strict=True)) if kept else (0.0, 0.0)
    expected = [0.5 * ((a - right) / right if right else 0.0) + other - rest for a, other in rows]
    totals = torch.tensor([0.5 * a + other for a, other in rows], dtype=torch.float64)
    accuracy, masked = torch.tensor([float(a) for a, _ in rows], dtype=torch.float64), torch.tensor(out)
    found = group_advantages(likelihood_rewards(totals, 0.5, accuracy, masked), masked, "over_mean")
    assert found[~masked].tolist() == pytest.approx([e for e, m in zip(expected, out, strict=True) if not m], abs=1e-10)
    assert all(found[masked] == 0)
    assert found.abs().max() <= 0.5 * max(1, len(kept) - 1) + 0.6


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
def test_processes_share_the_work_evenly(groups: list, processes: int) -> None:
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


def test_equal_groups_stay_whole() -> None:
    samples = flatten([((i,), [(7,) * 5] * 8) for i in range(8)])
    assert [len(part) for part in divide(samples, 4)] == [16] * 4
    assert sorted(map(len, divide([Tokens((1,), (2,))], 3))) == [0, 0, 1]
