"""Spending a wall-clock budget."""

from collections import deque
from statistics import median

from actors.protocols import Clock

FINISH_MARGIN_S = 3.0
"""Seconds for what ends a run besides evaluation and checkpoint: stopping actors and writing the summary."""

SAFETY = 1.25
"""A step is expected to take at most this much longer than the longest of the last `MEMORY` of its kind."""

MEMORY = 3

USUAL_MEMORY = 9
"""Steps whose median is what the next ones are forecast to take."""

EVALUATION_SAFETY = 2.0
"""The final evaluation may take so much longer than the one of the base model: the trained policy runs under an
adapter, and may have learned to answer at length."""

MOST_EVALUATION = 1 / 4
"""Of the whole budget, that the final evaluation may hold back: training is what the budget is for, and an evaluation
that is cut short judges fewer problems."""


class Budget:
    """Wall-clock seconds of a run, over all its resumes, and what the end has to leave room for.

    `spent_before` is what earlier processes of the run, and this one up to now, have used. The reserve for the final
    evaluation and checkpoint is learned: `expect` takes the duration of each step as it is measured.
    """

    def __init__(self, total: float, spent_before: float, clock: Clock, price_per_hour: float | None = None) -> None:
        self.total = total
        self._price = price_per_hour
        self._clock = clock
        self._started = clock.now() - spent_before
        self._durations: dict[str, deque[float]] = {}

    @property
    def spent(self) -> float:
        return self._clock.now() - self._started

    @property
    def left(self) -> float:
        return self.total - self.spent

    @property
    def cost(self) -> float | None:
        """What the time spent has cost, in the currency of the price; None without a price."""
        return None if self._price is None else self._price * self.spent / 3600

    @property
    def progress(self) -> float:
        """Share of the budget spent, at most 1."""
        return min(self.spent / self.total, 1.0)

    @property
    def reserve(self) -> float:
        """Seconds held back for the final evaluation and checkpoint."""
        return self.evaluation_reserve + self.expected("checkpoint") + FINISH_MARGIN_S

    @property
    def evaluation_reserve(self) -> float:
        """Seconds held back for the final evaluation, and the inspection of the adapter beside it."""
        wanted = max(EVALUATION_SAFETY * max(self._durations.get("evaluate", [0.0])), self.expected("inspect"))
        return min(wanted, MOST_EVALUATION * self.total)

    def expect(self, step: str, seconds: float) -> None:
        """Learn from a measured duration of `step`."""
        self._durations.setdefault(step, deque(maxlen=USUAL_MEMORY)).append(seconds)

    def expected(self, step: str) -> float:
        """Seconds the next `step` may take; 0 before the first has been measured."""
        return SAFETY * max(self._latest(step), default=0.0)

    def allows(self, step: str) -> bool:
        """Whether another `step` fits before the reserve."""
        return self.left - self.reserve > self.expected(step)

    def may_hold(self, *steps: str) -> bool:
        """Whether these steps, one after the other, fit before the reserve if each is as quick as the quickest of the
        last `MEMORY` of its kind; where they do not, it is no use to start the first.
        """
        quickest = (min(self._latest(step)) for step in steps if step in self._durations)
        return self.left - self.reserve > sum(quickest)

    def forecast(self, step: str) -> int | None:
        """How many more of `step` there will be before the reserve; None before the first has been measured."""
        recent = self._durations.get(step)
        return int(max(self.left - self.reserve, 0.0) / max(median(recent), 1e-9)) if recent else None

    def _latest(self, step: str) -> list[float]:
        return list(self._durations.get(step, ()))[-MEMORY:]

    def knows(self, step: str) -> bool:
        """Whether a `step` has been measured."""
        return step in self._durations
