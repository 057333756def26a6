"""Advantages by their formulas, and which groups can teach anything."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.advantages import group_advantages, likelihood_rewards, weigh
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.conftest import build_group

KINDS = ["group", "mean_only", "leave_one_out"]
rewards_lists = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0, 1.2]), min_size=1, max_size=16)


def reference(rewards: list[float], kind: str) -> list[float]:
    expected = []
    for number, reward in enumerate(rewards):
        others = [other for place, other in enumerate(rewards) if place != number]
        if len(set(rewards)) < 2:
            expected.append(0.0)
        elif kind == "leave_one_out":
            expected.append(reward - sum(others) / len(others))
        else:
            mean = sum(rewards) / len(rewards)
            deviation = (sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) ** 0.5
            expected.append((reward - mean) / (deviation + 1e-6 if kind == "group" else 1.0))
    return expected


@given(rewards_lists, st.sampled_from(KINDS))
def test_advantages_follow_their_formula(rewards: list[float], kind: str):
    assert group_advantages(rewards, kind) == pytest.approx(reference(rewards, kind), abs=1e-10)


@given(st.integers(1, 64), st.sampled_from([0.1, 0.2, 1.2, 0.7]), st.sampled_from(KINDS))
def test_equal_rewards_have_exactly_no_advantage(count: int, reward: float, kind: str):
    assert group_advantages([reward] * count, kind) == [0.0] * count


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([-0.4, 0.0, 0.2])), min_size=2, max_size=16))
def test_likelihood_divides_the_accuracy_alone_by_its_mean(rows: list[tuple[bool, float]]):
    """The reward is 0.5 · accuracy + the rest; the size of an advantage keeps its bound."""
    right, rest = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    expected = [0.5 * ((a - right) / right if right else 0.0) + other - rest for a, other in rows]
    totals = likelihood_rewards([0.5 * a + other for a, other in rows], 0.5, [float(a) for a, _ in rows])
    advantages = group_advantages(totals, "over_mean")
    assert advantages == pytest.approx(expected, abs=1e-10)
    assert max(map(abs, advantages)) <= 0.5 * max(1, len(rows) - 1) + 0.6


@pytest.mark.parametrize(
    ("rewards", "truncated", "settings", "advantages", "variance", "learnable"),
    [
        ((1.0, 0.0, None), (), {}, (0.5, -0.5, None), True, True),
        ((1.0, 1.0, None), (), {}, (0.0, 0.0, None), False, False),
        ((None, None), (), {}, (None, None), False, False),
        ((1.0, 0.0, 0.0), (0,), {}, (2 / 3, -1 / 3, -1 / 3), True, True),
        ((1.0, 0.0, 0.0), (0,), {"algorithm.mask_truncated": True}, (None, -1 / 3, -1 / 3), True, True),
        # All answers are cut off, one of them after it was right.
        ((1.0, 0.0), (0, 1), {"algorithm.mask_truncated": True}, (None, None), True, False),
        ((1.0, 0.0, 0.0), (), {"algorithm.advantages": "over_mean"}, (2.0, -1.0, -1.0), True, True),
    ],
)
def test_samples_without_a_verdict_or_cut_off_are_left_out(
    rewards: tuple[float | None, ...],
    truncated: tuple[int, ...],
    settings: dict[str, Any],
    advantages: tuple[float | None, ...],
    variance: bool,
    learnable: bool,
):
    config, group = changed(Config(), {"algorithm.advantages": "mean_only", **settings}), build_group(0, rewards)
    reasons = ["length" if number in truncated else "stop" for number in range(len(rewards))]
    pairs = zip(group.samples, reasons, strict=True)
    group = replace(group, samples=tuple(replace(sample, finish_reason=reason) for sample, reason in pairs))
    group = replace(group, advantages=weigh(group, config.algorithm, accuracy=1.0))
    for got, expected in zip(group.advantages, advantages, strict=True):
        assert got == (expected if expected is None else pytest.approx(expected))
    assert (not group.zero_variance, group.learnable) == (variance, learnable)
