"""How the cells of a sweep stand, and sweep.json, which is whole after any crash."""

import json
from dataclasses import dataclass
from typing import Any

from actors.storage.contents import Plan
from actors.storage.files import read_json, replace_text
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
        return (self.cell.record.rows() or [{}])[-1].get(metric)

    def evaluation(self, name: str) -> dict[str, Any] | None:
        """Return the run's evaluation of this name, `base` or `final`, once it has ended."""
        summary = self.cell.record.summary() if self.status != "running" else None
        return summary["eval"].get(name) if summary else None


class SweepRecord:
    """Goes on from the record of an earlier process; raises BadInput if that knows of other cells."""

    def __init__(self, grid: Grid, budgets: dict[str, float]) -> None:
        """budgets: of the cells by name, in seconds."""
        self._grid = grid
        self._file = grid.folder / "sweep.json"
        self.standings = {cell.name: Standing(cell, budgets[cell.name]) for cell in grid.cells}
        for entry in (read_json(self._file, Plan) or {"cells": []})["cells"]:
            if (standing := self.standings.get(entry["cell"])) is None:
                raise BadInput(
                    f"sweep {grid.name!r} has a cell {entry['cell']} that this command leaves out: "
                    f"give all its axes, or sweep.name=OTHER"
                )
            standing.status, standing.reason = entry["status"], entry.get("reason")

    def write(self) -> None:
        cells = [
            {
                "cell": name,
                "overrides": standing.cell.overrides,
                "run": name,
                "status": standing.status,
                "reason": standing.reason,
            }
            for name, standing in self.standings.items()
        ]
        content = {"name": self._grid.name, "conf": self._grid.conf, "axes": self._grid.axes, "cells": cells}
        replace_text(self._file, json.dumps(content, indent=2) + "\n")
