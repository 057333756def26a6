"""Which learning rate each cell of a sweep gets, as far as the trials before it have decided."""

from collections.abc import Callable

from launch.sweeps.grid import Cell, Grid
from launch.sweeps.halving import survivors
from launch.sweeps.record import SweepRecord


class Tuner:
    """Reads the trials' rates and scores off the record: what an earlier process of the sweep has decided stands."""

    def __init__(self, grid: Grid, record: SweepRecord, over: Callable[[Cell], bool]) -> None:
        """over: whether this process has nothing more to do for a cell."""
        self._grid = grid
        self._record = record
        self._over = over
        self._last = max((cell.trial.rung for cell in grid.trials if cell.trial), default=0)

    def ready(self, cell: Cell) -> bool:
        """Whether all that a cell's learning rate depends on is over."""
        return self._record.rate[cell.name] is not None or self._rates(cell) is not None

    def rate(self, cell: Cell) -> float | None:
        """Return the rate of a cell that is ready; None if none is left for it."""
        if (known := self._record.rate[cell.name]) is not None:
            return known
        rates, place = self._rates(cell) or [], cell.trial.place if cell.trial else 0
        return rates[place] if place < len(rates) else None

    def decided(self, cell: Cell) -> bool:
        """Whether a later rung has begun on what was known of this trial, so that it must not change any more."""
        later = [other for other in self._of(cell, self._rung(cell) + 1) if self._record.rate[other.name] is not None]
        return cell.trial is not None and bool(later)

    def _rates(self, cell: Cell) -> list[float] | None:
        """Return the rates of a cell's rung, the best first; None while they are not known."""
        rungs = []
        for number in range(1, self._rung(cell)):
            over = [trial for trial in self._of(cell, number) if self._over(trial)]
            rates = ((self._record.rate[trial.name], self._record.score[trial.name]) for trial in over)
            rungs.append({rate: score for rate, score in rates if rate is not None})
        return survivors(cell.rates, rungs)

    def _rung(self, cell: Cell) -> int:
        return cell.trial.rung if cell.trial else self._last + 1

    def _of(self, cell: Cell, rung: int) -> list[Cell]:
        return [other for other in self._grid.all if other.setting == cell.setting and self._rung(other) == rung]
