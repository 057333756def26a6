"""The learning rate: warm-up, schedule, and its limit by KL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.conf.schema import LearnerConfig
from microbudget_rl.learner.rate import Brake, schedule_factor

MOST = 0.03


def factors(schedule: str, final_rate: float = 0.1) -> list[float]:
    config = LearnerConfig(schedule=schedule, final_rate=final_rate)
    return [schedule_factor(config, 5, progress) for progress in (0.0, 0.5, 1.0)]


def test_schedules_span_the_budget() -> None:
    assert factors("constant") == pytest.approx([1.0, 1.0, 1.0])
    assert factors("linear") == pytest.approx([1.0, 0.55, 0.1])
    assert factors("cosine", 0.0) == pytest.approx([1.0, 0.5, 0.0])


def test_warmup_is_linear_and_never_zero() -> None:
    config = LearnerConfig(warmup_updates=3)
    assert [schedule_factor(config, update, 0.0) for update in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert [schedule_factor(config, update, 0.0, 4) for update in range(4)] == pytest.approx([0.5, 1.0, 1.0, 1.0])


def seen(brake: Brake, rates: list[float], stiffness: float, noise: float = 0.0) -> list[float]:
    """Return the rates of updates that each move the policy by `stiffness` times the squared rate."""
    made = []
    brake.see(noise, 0.0)
    for rate in rates:
        made.append(brake.limit(rate, 1.0, MOST))
        brake.see(stiffness * made[-1] ** 2 + noise, 1.0)
    return made


@given(st.floats(1e-7, 1.0), st.floats(1.0, 1e12), st.floats(0, 1))
def test_a_rate_too_high_is_lowered_after_one_update_and_others_stay(
    rate: float, stiffness: float, noise: float
) -> None:
    first, *others = seen(Brake(), [rate] * 8, stiffness, noise)
    best = (MOST / stiffness) ** 0.5
    assert first == rate
    assert others == pytest.approx([min(rate, best)] * 7, rel=1e-2 if noise * 1e-12 < stiffness * rate**2 else 1e9)


def test_single_batches_do_not_brake() -> None:
    brake = Brake()
    seen(brake, [1.0] * 5, MOST / 2)
    brake.see(100 * MOST, 1.0)
    assert brake.limit(1.0, 1.0, MOST) == 1.0


@given(st.lists(st.tuples(st.floats(0, 1e9), st.sampled_from((0.0, 0.25, 1.0)), st.floats(1e-9, 1)), max_size=8))
def test_a_restored_brake_is_the_same(steps: list[tuple[float, float, float]]) -> None:
    brake = Brake()
    for kl, behind, rate in steps:
        brake.see(kl, behind)
        assert 0 < brake.limit(rate, 1.0, MOST) <= rate
        brake = Brake.of(brake.state)
    assert Brake.of(brake.state) == brake
