from actors.coordinator.budget import FINISH_MARGIN_S, SAFETY, Budget


class HandClock:
    """Time that a test moves by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_update_that_would_eat_the_reserve_is_not_started() -> None:
    """Only the last steps count."""
    clock = HandClock()
    budget = Budget(1000.0, 0.0, clock)
    for seconds in (90.0, 10.0, 12.0, 11.0):
        budget.expect("update", seconds)
    assert budget.expected("update") == SAFETY * 12.0
    budget.expect("evaluate", 16.0)
    clock.time += 1000.0 - budget.reserve - SAFETY * 12.0 - 0.1
    assert budget.allows("update")
    clock.time += 0.2
    assert not budget.allows("update")


def test_cost_follows_the_time_spent() -> None:
    clock = HandClock()
    budget = Budget(3600.0, 900.0, clock, price_per_hour=0.4)
    clock.time += 900
    assert budget.cost == 0.2
    assert Budget(3600.0, 900.0, clock).cost is None


def test_forecast_goes_by_the_usual_step_and_leaves_the_reserve() -> None:
    budget = Budget(FINISH_MARGIN_S + 100.0, 0.0, HandClock())
    assert budget.forecast("turn") is None
    for seconds in (9.0, 10.0, 30.0):
        budget.expect("turn", seconds)
    assert budget.forecast("turn") == 10
