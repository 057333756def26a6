"""What adapts while a run goes on, or ends it. Its whole state is one document of the checkpoint."""

from collections.abc import Mapping

from microbudget_rl.actors.coordinator.rules.collapse_guard import Alarm, Guard
from microbudget_rl.actors.coordinator.rules.learning import FruitlessStreak
from microbudget_rl.actors.coordinator.rules.rate import RateLimit, learning_rate
from microbudget_rl.actors.coordinator.rules.way_back import SLOWER
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import Measured
from microbudget_rl.actors.storage.documents import ControlsState
from microbudget_rl.conf.schema import Config

SKIPPED_UPDATES = 3
"""Updates in a row with a non-finite loss or gradient that halt the run: one may be due to its batch."""


class Controls:
    """The learning rate and its limit, skipped updates, groups that teach nothing, and the collapse guard: a pure state
    machine. Its methods are in the order of an update.
    """

    def __init__(self, config: Config, state: ControlsState, rollbacks: int = 0) -> None:
        """rollbacks: number of returns to an earlier version so far."""
        self._config = config
        self._slower = SLOWER**rollbacks
        self._rate_limit = RateLimit(state.rate_limit)
        self._guard = Guard(config.guard, state.guard)
        self._skipped = state.skipped
        self._fraction = 1.0  # of the schedule's rate, in the present update
        self.fruitless = FruitlessStreak(config, state.fruitless)

    @property
    def state(self) -> ControlsState:
        return ControlsState(
            rate_limit=self._rate_limit.state,
            guard=self._guard.state,
            skipped=self._skipped,
            fruitless=self.fruitless.state,
        )

    def rate(self, update: int, progress: float, measured: Measured) -> float:
        """Return the learning rate of a batch's step. update, progress: as for `learning_rate`."""
        settings = self._config.learner
        self._fraction = 1.0
        if settings.max_kl and measured.examples:
            self._rate_limit.observe(measured)
            self._fraction = self._rate_limit.rate_fraction(settings.learning_rate, settings.max_kl)
        return self._slower * self._fraction * learning_rate(settings, update, progress, self._config.budget.updates)

    def stepped(self, rate: float, measured: Measured, fault: str) -> dict[str, float]:
        """Learn what came of a step. Return its metrics. Raises Halted after SKIPPED_UPDATES faults in a row."""
        self._rate_limit.last = rate if measured.examples and not fault else 0.0
        self._skipped = self._skipped + 1 if fault else 0
        if self._skipped == SKIPPED_UPDATES:
            samples = "their samples are in samples/skipped-*"
            raise Halted(f"{SKIPPED_UPDATES} updates in a row were skipped: {fault}; {samples}")
        return {"learning_rate": rate, "learner/rate_kept": self._fraction, "learner/skipped": float(bool(fault))}

    def alarms(self, row: Mapping[str, float]) -> list[Alarm]:
        """Return the collapse guard's alarms about an update's row of metrics."""
        return self._guard.add_row(row)
