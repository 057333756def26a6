import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.advantages import group_advantages

rewards_lists = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0, 1.2]), min_size=1, max_size=16)


@given(rewards_lists, st.data())
def test_formula(rewards: list[float], data: st.DataObject) -> None:
    masked = data.draw(st.lists(st.booleans(), min_size=len(rewards), max_size=len(rewards)))
    got = group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.tensor(masked)).tolist()
    judged = [reward for reward, out in zip(rewards, masked, strict=True) if not out]
    mean = sum(judged) / max(len(judged), 1)
    variance = sum((reward - mean) ** 2 for reward in judged) / max(len(judged) - 1, 1)
    for reward, out, advantage in zip(rewards, masked, got, strict=True):
        expected = 0.0 if out or len(set(judged)) < 2 else (reward - mean) / (variance**0.5 + 1e-6)
        assert advantage == pytest.approx(expected, abs=1e-10)


@given(st.integers(1, 64), st.sampled_from([0.1, 0.2, 1.2, 0.7]))
def test_equal_rewards_have_exactly_no_advantage(count: int, reward: float) -> None:
    rewards = torch.full((count,), reward, dtype=torch.float64)
    assert group_advantages(rewards, torch.zeros(count, dtype=torch.bool)).tolist() == [0.0] * count
