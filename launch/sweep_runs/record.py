"""How the cells of a sweep stand, and sweep.json, which is whole after any crash."""

from dataclasses import dataclass

from actors.storage.documents import Heldout, SweepDocument, SweepEntry
from actors.storage.files import read_document, write_document
from actors.storage.run_record import FINISHED
from conf.errors import BadInput
from launch.sweep_runs.grid import Cell, Grid


@dataclass
class Standing:
    """How a cell stands. budget: seconds."""

    cell: Cell
    budget: float
    status: str = "pending"
    reason: str | None = None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def spent(self) -> float:
        return self.cell.record.spent

    @property
    def left(self) -> float:
        return max(self.budget - self.spent, 0.0)

    def latest(self, metric: str) -> float | None:
        """Return a metric of the last update."""
        rows = self.cell.record.rows()
        return rows[-1].metrics.get(metric) if rows else None

    def evaluation(self, name: str) -> Heldout | None:
        """Return the run's evaluation of this name, `base` or `final`, once it has ended."""
        summary = self.cell.record.summary() if self.status != "running" else None
        return {"base": summary.eval.base, "final": summary.eval.final}[name] if summary else None


class SweepRecord:
    """Goes on from the sweep.json of an earlier process. Raises BadInput if that has other cells."""

    def __init__(self, grid: Grid, budgets: dict[str, float]) -> None:
        """budgets: seconds by cell."""
        self._grid = grid
        self._file = grid.folder / "sweep.json"
        self.standings = {cell.name: Standing(cell, budgets[cell.name]) for cell in grid.cells}
        known = read_document(self._file, SweepDocument)
        for entry in known.cells if known else ():
            if (standing := self.standings.get(entry.cell)) is None:
                raise BadInput(
                    f"sweep {grid.name!r} has a cell {entry.cell} that this command leaves out: "
                    f"give all its axes, or sweep.name=OTHER"
                )
            standing.status, standing.reason = entry.status, entry.reason

    def write(self) -> None:
        entries = [
            SweepEntry(cell=name, overrides=each.cell.overrides, run=name, status=each.status, reason=each.reason)
            for name, each in self.standings.items()
        ]
        grid = self._grid
        write_document(self._file, SweepDocument(name=grid.name, conf=grid.conf, axes=grid.axes, cells=entries))
