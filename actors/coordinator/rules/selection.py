"""Chooses the result of a run among its validated versions."""

import math
from collections.abc import Collection, Iterable, Mapping

SCORE = "validation/pass@1"
REWARD = "validation/reward"
"""The score instead, where the reward weighs no answer."""


def score_of(row: Mapping[str, float]) -> float | None:
    """Return the score of the version in a row of metrics; None if it was not validated."""
    return row.get(REWARD, row.get(SCORE))


FALL = 0.15
"""Distance below the highest score at which a validation counts as fallen. A reward has a scale of its own."""

FALLS = 3
"""Fallen validations in a row that are no accident."""


class Selection:
    """Chooses the version with the highest score: a pure state machine.

    The score is the mean of a version's validation and the one before it, so that a single lucky validation does not
    win; of equal scores the later wins. docs/how-to/evaluate.md compares it with other rules in simulation.

    chosen: its version; None without a validation. validated: the latest version that was. unrisen: number of
    validations since the highest score rose. fallen: whether the last FALLS validations were far below it.
    """

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()) -> None:
        """rows: the rows of metrics.jsonl so far, in the order of their updates."""
        self.chosen: int | None = None
        self.validated: int | None = None
        self.unrisen = self._falls = 0
        self._best = self._previous = -math.inf
        for row in rows:
            self.add_row(row)

    @property
    def fallen(self) -> bool:
        return self._falls >= FALLS

    @classmethod
    def among(cls, versions: Collection[int], rows: Iterable[Mapping[str, float]]) -> "Selection":
        """Return the choice after some rows. If its checkpoint is gone, only the versions with a checkpoint count."""
        rows = list(rows)
        selection = cls(rows)
        if selection.chosen in (None, *versions):
            return selection
        return cls(row for row in rows if row["update"] in versions)

    def add_row(self, row: Mapping[str, float]) -> bool:
        """Add an update's row. Return whether its version is chosen now."""
        if (validation := score_of(row)) is None:
            return False
        score = validation if self.chosen is None else (validation + self._previous) / 2
        self._previous, self.validated = validation, int(row["update"])
        fell = REWARD not in row and validation < self._best - FALL
        self._falls = self._falls + 1 if fell else 0
        self.unrisen = 0 if score > self._best else self.unrisen + 1
        if score < self._best:
            return False
        self.chosen, self._best = self.validated, score
        return True
