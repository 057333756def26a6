"""The learning rate: warm-up, schedule, and its limit by the policy's movement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.rules.rate import FEWEST, RECENT, RateLimit, learning_rate
from microbudget_rl.actors.messages import Measured
from microbudget_rl.actors.storage.documents import RateLimitState
from microbudget_rl.conf.schema import LearnerConfig

MOST = 0.03


def rates(schedule: str, final_rate: float = 0.1) -> list[float]:
    config = LearnerConfig(learning_rate=0.5, schedule=schedule, final_rate=final_rate)
    return [learning_rate(config, 5, progress) for progress in (0.0, 0.5, 1.0)]


def test_schedules_span_the_budget():
    assert rates("constant") == pytest.approx([0.5, 0.5, 0.5])
    assert rates("linear") == pytest.approx([0.5, 0.275, 0.05])
    assert rates("cosine", 0.0) == pytest.approx([0.5, 0.25, 0.0])


def test_warmup_is_linear_and_never_zero():
    config = LearnerConfig(learning_rate=1.0, warmup_updates=3)
    assert [learning_rate(config, update, 0.0) for update in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert [learning_rate(config, update, 0.0, 4) for update in range(4)] == pytest.approx([0.5, 1.0, 1.0, 1.0])


@given(
    peak=st.floats(1e-7, 1.0),
    excess=st.floats(1e-3, 1e3),
    noise=st.floats(0.0, MOST / 200),
    factors=st.lists(st.floats(0.1, 1.0), min_size=FEWEST + 1),
)
def test_a_rate_too_high_is_lowered_once_enough_updates_say_so(
    peak: float, excess: float, noise: float, factors: list[float]
):
    """excess: KL at the peak, as a multiple of the largest that is allowed. factors: those of the schedule."""
    limit, made = RateLimit(), []
    limit.observe(Measured(1, noise, 0.0))
    for factor in factors:
        made.append(limit.rate_fraction(peak, MOST))
        limit.last = peak * factor * made[-1]
        limit.observe(Measured(1, MOST * excess * (limit.last / peak) ** 2 + noise, 1.0))
    assert made[:FEWEST] == [1.0] * FEWEST
    assert made[FEWEST:] == pytest.approx([min(1.0, excess**-0.5)] * (len(factors) - FEWEST), rel=1e-2)


def test_single_batches_rounding_and_updates_without_a_change_do_not_rate_limit():
    limit = RateLimit(RateLimitState(noise=MOST / 10))
    limit.last = 0.01
    limit.observe(Measured(1, MOST / 6, 1.0))
    assert limit.rate_fraction(1.0, MOST) == 1.0
    for kl in [100 * MOST] + [MOST / 2] * RECENT + [100 * MOST]:
        limit.last = 1.0
        limit.observe(Measured(1, kl, 1.0))
        assert limit.rate_fraction(1.0, MOST) == 1.0
    limit.last = 0.0
    limit.observe(Measured(1, 100 * MOST, 1.0))
    assert limit.rate_fraction(1.0, MOST) == 1.0


def test_movement_within_the_rounding_does_not_release_the_limit():
    limit = RateLimit(RateLimitState(noise=MOST / 10, last=1.0))
    for _ in range(FEWEST):
        limit.observe(Measured(1, 100 * MOST, 1.0))
    for _ in range(RECENT):
        limit.last = 0.1 * limit.rate_fraction(1.0, MOST)
        limit.observe(Measured(1, MOST / 6, 1.0))
    assert limit.rate_fraction(1.0, MOST) == pytest.approx(0.1, rel=1e-2)


@pytest.mark.parametrize("kl", [float("nan"), float("inf")])
@pytest.mark.parametrize("behind", [0.0, 1.0])
def test_a_batch_that_is_not_finite_says_nothing_about_the_rate(kl: float, behind: float):
    limit = RateLimit(RateLimitState(last=1.0))
    limit.observe(Measured(1, 4 * MOST, 1.0))
    before = limit.state
    limit.observe(Measured(1, kl, behind))
    assert limit.state == before
