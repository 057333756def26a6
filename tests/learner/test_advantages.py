import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.advantages import group_advantages

KINDS = ["group", "mean_only", "leave_one_out"]
rewards_lists = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0, 1.2]), min_size=1, max_size=16)


def reference(rewards: list[float], masked: list[bool], kind: str) -> list[float]:
    judged = [reward for reward, out in zip(rewards, masked, strict=True) if not out]
    expected = []
    for number, (reward, out) in enumerate(zip(rewards, masked, strict=True)):
        others = [r for i, r in enumerate(rewards) if not masked[i] and i != number]
        if out or len(set(judged)) < 2:
            expected.append(0.0)
        elif kind == "leave_one_out":
            expected.append(reward - sum(others) / len(others))
        else:
            mean = sum(judged) / len(judged)
            deviation = (sum((r - mean) ** 2 for r in judged) / (len(judged) - 1)) ** 0.5
            expected.append((reward - mean) / (deviation + 1e-6 if kind == "group" else 1.0))
    return expected


@given(rewards_lists, st.data(), st.sampled_from(KINDS))
def test_formula(rewards: list[float], data: st.DataObject, kind: str) -> None:
    masked = data.draw(st.lists(st.booleans(), min_size=len(rewards), max_size=len(rewards)))
    got = group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.tensor(masked), kind)
    assert got.tolist() == pytest.approx(reference(rewards, masked, kind), abs=1e-10)


@given(st.integers(1, 64), st.sampled_from([0.1, 0.2, 1.2, 0.7]), st.sampled_from(KINDS))
def test_equal_rewards_have_exactly_no_advantage(count: int, reward: float, kind: str) -> None:
    rewards = torch.full((count,), reward, dtype=torch.float64)
    assert group_advantages(rewards, torch.zeros(count, dtype=torch.bool), kind).tolist() == [0.0] * count
