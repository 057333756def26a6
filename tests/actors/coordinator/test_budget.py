import asyncio

import pytest

from microbudget_rl.actors.coordinator.budget import EVALUATION_SAFETY, FINISH_MARGIN_S, SAFETY, Budget, EvaluationStep
from tests.virtual_time import run_virtually


class HandClock:
    """Time that a test moves by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_update_that_would_eat_the_reserve_is_not_started():
    """Only the last steps count, and the time of earlier processes does."""
    clock = HandClock()
    budget = Budget(1045.0, 45.0, clock)
    for seconds in (90.0, 10.0, 12.0, 11.0):
        budget.expect("update", seconds)
    assert budget.expected("update") == SAFETY * 12.0
    budget.expect(EvaluationStep(), 16.0)
    budget.expect(EvaluationStep("hard"), 5.0)
    assert budget.reserve == EVALUATION_SAFETY * (16.0 + 5.0) + FINISH_MARGIN_S
    clock.time += 1000.0 - budget.reserve - SAFETY * 12.0 - 0.1
    assert budget.allows("update")
    clock.time += 0.2
    assert not budget.allows("update")


@pytest.mark.parametrize(("steps", "usual"), [([9.0, 10.0, 11.0, 30.0], 10.5), ([30.0, *[5.0, 15.0] * 20], 10.0)])
def test_forecast_goes_by_the_usual_step_and_leaves_the_reserve(steps: list[float], usual: float):
    """Neither one slow step nor steps that alternate move it."""
    budget = Budget(FINISH_MARGIN_S + 100.0, 0.0, HandClock())
    assert budget.forecast("turn") is None
    for seconds in steps:
        budget.expect("turn", seconds)
    assert budget.forecast("turn") == int(100.0 / usual)


def test_steps_that_cannot_even_fit_at_their_quickest_are_no_use():
    budget = Budget(FINISH_MARGIN_S + 20.0, 0.0, HandClock())
    assert budget.may_hold("group", "update")
    for seconds in (8.0, 50.0):
        budget.expect("group", seconds)
    assert budget.may_hold("group", "update")
    budget.expect("update", 13.0)
    assert not budget.may_hold("group", "update")


def test_training_that_is_being_cut_off_is_left_alone():
    budget = Budget(100.0, 0.0, HandClock())

    async def train() -> None:
        async with asyncio.timeout(0.0) as training:
            try:
                await asyncio.sleep(60.0)
            finally:  # it expires, which asyncio allows nobody to change
                budget.cut_off(training, saves=True)

    with pytest.raises(TimeoutError):
        run_virtually(train())
