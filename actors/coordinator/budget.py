"""The wall-clock budget of a run."""

import asyncio
import math
from collections import deque
from statistics import median
from typing import NamedTuple

from microbudget_rl.actors.protocols import Clock

FINISH_MARGIN_S = 3.0
"""Seconds at the end of a run, after evaluation and checkpoint, for stopping actors and writing the summary."""

LAST_MOMENT_S = 2.0
"""Seconds before the end of the budget at which everything but the summary is given up."""

MEMORY = 3
SAFETY = 1.25
"""A step should take at most SAFETY times the longest of the last MEMORY of its kind."""

STEADY = 20
"""Steps of a kind whose usual duration a forecast goes by, so that it does not follow each of them."""

EVALUATION_SAFETY = 2.0
"""Reserve for the final evaluation, as a multiple of the base evaluation's duration. The trained policy runs under an
adapter, and may have learned long responses. The evaluation of a second policy adds the duration itself."""

MOST_EVALUATION = 1 / 4
"""Largest fraction of the budget held back for the final evaluations. Cut short, they have fewer problems."""


def evaluations_reserve(
    total_s: float, policies: int, evaluate_s: float, benchmarks_s: float, least_s: float = 0.0
) -> float:
    """Return the seconds of a budget held back for the final evaluations of so many policies, one with benchmarks.

    evaluate_s, benchmarks_s: of the base model on the held-out problems, and on all benchmarks. least_s: of work while
    they run.
    """
    wanted_s = (EVALUATION_SAFETY + policies - 1) * evaluate_s + EVALUATION_SAFETY * benchmarks_s
    return min(max(wanted_s, least_s), MOST_EVALUATION * total_s)


def enough_s(used_s: float, policies: int, evaluate_s: float, benchmarks_s: float) -> float:
    """Return the smallest budget that holds so many seconds beside the reserve for the final evaluations."""
    wanted_s = evaluations_reserve(math.inf, policies, evaluate_s, benchmarks_s)
    return min(used_s + wanted_s, used_s / (1 - MOST_EVALUATION))


def cost_of(price_per_hour: float | None, seconds: float) -> float | None:
    """Return the cost of a run in the currency of the price; None without a price."""
    return None if price_per_hour is None else price_per_hour * seconds / 3600


class EvaluationStep(NamedTuple):
    """A step that evaluates a policy. benchmark: its name; empty for the held-out problems."""

    benchmark: str = ""


Step = str | EvaluationStep


class Budget:
    """Wall-clock seconds of a run over all its resumes, and the reserve for its end, estimated from durations."""

    def __init__(self, total: float, spent_before: float, clock: Clock, policies: int = 1) -> None:
        """total: seconds. spent_before: seconds that earlier processes, and this one up to now, have used. policies:
        number to evaluate at the end, 2 where the result may not be the last.
        """
        self.total, self._policies, self._clock = total, policies, clock
        self._started = clock.now() - spent_before
        self._durations: dict[Step, deque[float]] = {}

    @property
    def spent(self) -> float:
        return self._clock.now() - self._started

    @property
    def left(self) -> float:
        return self.total - self.spent

    @property
    def reserve(self) -> float:
        """Seconds held back for the final evaluations and checkpoint, and for the last version's validation."""
        return self.evaluation_reserve + self.expected("checkpoint") + self.expected("validate") + FINISH_MARGIN_S

    @property
    def evaluation_reserve(self) -> float:
        """Seconds held back for the final evaluations, during which the adapter is inspected. A benchmark has one."""
        benchmarks = (step for step in self._durations if isinstance(step, EvaluationStep) and step.benchmark)
        benchmarks_s = sum(max(self._newest(step)) for step in benchmarks)
        evaluate_s, inspect_s = max(self._newest(EvaluationStep())), self.expected("inspect")
        return evaluations_reserve(self.total, self._policies, evaluate_s, benchmarks_s, inspect_s)

    @property
    def evaluation_s(self) -> float:
        """Seconds that the final evaluations are expected to take."""
        return self.evaluation_reserve * self._policies / (EVALUATION_SAFETY + self._policies - 1)

    def expect(self, step: Step, seconds: float) -> None:
        """Learn from a measured duration of `step`."""
        self._durations.setdefault(step, deque(maxlen=STEADY)).append(seconds)

    def expected(self, step: Step) -> float:
        """Return the seconds that the next `step` may take; 0 before the first has been measured."""
        return SAFETY * max(self._newest(step))

    def allows(self, step: Step) -> bool:
        """Whether another `step` fits before the reserve."""
        return self.left - self.reserve > self.expected(step)

    def may_hold(self, *steps: Step) -> bool:
        """Whether all of these steps fit before the reserve if each takes its shortest time of the last MEMORY."""
        quickest = (min(self._newest(step)) for step in steps if self.knows(step))
        return self.left - self.reserve > sum(quickest)

    def forecast(self, step: Step) -> int | None:
        """Return how many more of `step` fit before the reserve, by its median duration; None before the first."""
        if not self.knows(step):
            return None
        return int(max(self.left - self.reserve, 0.0) / max(median(self._durations[step]), 1e-9))

    def cut_off(self, training: asyncio.Timeout, saves: bool) -> None:
        """Have training end once only the reserve for what follows is left, unless it is already being cut off.

        saves: whether the version before is to be saved then, as after a late gradient. A cut-off step saves nothing.
        """
        reserve = self.reserve if saves else self.evaluation_reserve + FINISH_MARGIN_S
        if not training.expired():  # also while it expires
            training.reschedule(asyncio.get_running_loop().time() + self.left - reserve)

    def knows(self, step: Step) -> bool:
        return step in self._durations

    def _newest(self, step: Step) -> list[float]:
        """Return the last durations of `step`; zero before the first has been measured."""
        return [*self._durations.get(step, [0.0])][-MEMORY:]
