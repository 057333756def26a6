"""The learning rate: warm-up, schedule, and steering by KL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.conf.schema import LearnerConfig
from microbudget_rl.learner.rate import FARTHEST, STRIDE, Steering, schedule_factor

TARGET = 0.01


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


@given(
    factor=st.floats(1 / FARTHEST, FARTHEST),
    best=st.floats(1e-6, 1e-1),
    noise=st.floats(0, TARGET / 8),
    last=st.floats(0.5, 1.0),
)
def test_any_rate_is_steered_to_the_target_and_stays(factor: float, best: float, noise: float, last: float) -> None:
    """The KL of an update is quadratic in its rate. Here `factor` and the schedule multiply the rate."""
    kl_at_factor_1 = TARGET * (1 / factor) ** 2
    steering = Steering(noise=noise)
    seen = []
    for _ in range(12):
        steering.last = last
        steering.see(kl_at_factor_1 * (steering.factor * last) ** 2 + noise, 1.0, TARGET)
        seen.append(steering.factor)
    assert TARGET / 2 <= kl_at_factor_1 * steering.factor**2 <= TARGET * 2
    assert seen[-1] == seen[-2]


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 4))))
def test_the_factor_keeps_its_bounds(seen: list[tuple[float, float]]) -> None:
    steering = Steering(last=1.0)
    for kl, behind in seen:
        before = steering.factor
        steering.see(kl, behind, TARGET)
        assert 1 / FARTHEST <= steering.factor <= FARTHEST
        assert max(steering.factor / before, before / steering.factor) <= STRIDE * 1.0001


def test_rounding_changes_no_rate() -> None:
    """At the end of a schedule, the movement is below what two implementations disagree by."""
    steering = Steering(last=0.1)
    steering.see(0.002, 0.0, TARGET)
    for kl in (0.001, 0.002, 0.003):
        steering.see(kl, 1.0, TARGET)
    assert (steering.factor, steering.noise) == (1.0, 0.002)
