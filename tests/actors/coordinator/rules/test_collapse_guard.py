import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.rules.collapse_guard import Guard
from microbudget_rl.conf.schema import GuardConfig

NORMAL = {
    "response/mean_length": 300.0,
    "reward/mean": 0.4,
    "reward/format": 0.9,
    "policy/kl_to_base": 0.05,
}


def rows(count: int, seed: int = 0, noise: float = 0.1, **changed: float) -> list[dict[str, float]]:
    """Rows around the normal values, some of them changed."""
    rng = random.Random(seed)
    values = {**NORMAL, **{name.replace("__", "/"): value for name, value in changed.items()}}
    return [{name: value * rng.gauss(1.0, noise) for name, value in values.items()} for _ in range(count)]


def alarms(guard: Guard, sequence: list[dict[str, float]]) -> list[str]:
    return [alarm.signal for row in sequence for alarm in guard.add_row(row)]


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_noise_raises_no_alarm(seed: int):
    assert alarms(Guard(GuardConfig()), rows(300, seed, noise=0.15)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response/mean_length", 20.0),
        ("response/mean_length", 3000.0),
        ("reward/mean", 0.0),
        ("reward/format", 0.0),
        ("policy/kl_to_base", 5.0),
    ],
)
def test_collapse_is_noticed_within_a_few_updates_and_once(name: str, value: float):
    guard = Guard(GuardConfig())
    assert alarms(guard, rows(40)) == []
    changed = rows(60, seed=1, **{"reward__mean": 0.3, name.replace("/", "__"): value})
    assert alarms(guard, changed[:3]) == [name]
    assert alarms(guard, changed[3:]) == []


def test_one_outlier_is_no_collapse():
    sequence = rows(60)
    sequence[40] = {**sequence[40], "response/mean_length": 0.0, "reward/mean": 0.0}
    assert alarms(Guard(GuardConfig()), sequence) == []


def test_learning_raises_no_alarm():
    """Rewards rise, KL and length grow, all steadily; entropy is lost."""
    learning = [
        {
            "policy/entropy": 1.5 * 0.9**n,
            "response/mean_length": 300.0 + 5 * n,
            "reward/mean": 0.05 + 0.008 * n,
            "reward/format": min(1.0, 0.1 + n / 50),
            "policy/kl_to_base": 0.001 * n,
        }
        for n in range(100)
    ]
    assert alarms(Guard(GuardConfig()), learning) == []


@pytest.mark.parametrize(("reward", "expected"), [(0.7, []), (0.4, []), (0.3, ["policy/kl_to_base"])])
def test_no_change_is_a_collapse_unless_the_reward_falls(reward: float, expected: list[str]):
    guard = Guard(GuardConfig())
    changed = rows(3, seed=1, noise=0.0, policy__kl_to_base=1.7, reward__mean=reward)
    assert alarms(guard, [*rows(20), *changed]) == expected


def test_few_effective_samples_are_a_warning_once_a_window():
    few = [{"mismatch/ess": value} for value in (0.9, 0.4, 0.45, *[0.3] * 30)]
    guard = Guard(GuardConfig())
    found = {number: alarm for number, row in enumerate(few) for alarm in guard.add_row(row)}
    assert list(found) == [2, 25]
    assert not found[2].collapse
    assert str(found[2]) == "mismatch/ess is below 0.5: 0.45"
    enough = [1.0] * 40 + [0.55, 0.2, 0.6] * 20 + [0.51] * 40
    assert alarms(Guard(GuardConfig()), [{"mismatch/ess": share} for share in enough]) == []


def test_rows_without_a_signal_are_skipped():
    guard = Guard(GuardConfig())
    sequence = [row if n % 3 else {"reward/mean": 0.4} for n, row in enumerate(rows(60))]
    assert alarms(guard, sequence) == []
    assert "reward/format" in alarms(guard, rows(4, reward__format=0.05, reward__mean=0.2))
