"""Where a run stands, for whoever watches it."""

from typing import Any

from actors.coordinator.budget import Budget
from actors.coordinator.ledger import Ledger
from actors.messages import Progress

DOING = {"finishing": "the trained model answers held-out problems"}
"""What a phase does all the time, for a person."""


class Standing:
    """What `Progress` says besides what others know. phase, doing, notice, latest: as there."""

    def __init__(self, budget: Budget, ledger: Ledger, limit: int | None) -> None:
        """limit: updates after which the run ends, None if time alone ends it."""
        self.phase, self.doing, self.notice = "starting", "", ""
        self.latest: dict[str, float] = {}
        self._budget, self._ledger, self._limit = budget, ledger, limit

    def enter(self, phase: str) -> None:
        """Begin a phase, in the ledger too."""
        self.phase, self.doing = phase, DOING.get(phase, "")
        self._ledger.enter("run", phase)

    def progress(self, updates: int, base: dict[str, Any] | None) -> Progress:
        """Return where the run stands after so many updates. base: the evaluation of the base model."""
        fitting = self._budget.forecast("turn")
        missing = [] if self._limit is None else [self._limit - updates]
        return Progress(
            phase=self.phase,
            updates=updates,
            spent=self._budget.spent,
            left=self._budget.left,
            updates_left=None if fitting is None else min([fitting, *missing]),
            latest=self.latest,
            cost=self._budget.cost,
            notice=self.notice,
            doing=self.doing,
            base=base["pass@1"] if base else None,
        )
