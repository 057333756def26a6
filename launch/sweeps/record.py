"""sweep.json: how every cell of a sweep stands, whole after any crash."""

import json
from typing import Any

from actors.storage.contents import Plan
from actors.storage.files import read_json, replace_text
from actors.storage.run_record import FINISHED
from conf.errors import BadInput
from launch.sweeps.grid import Cell, Grid

NOT_STARTED_AGAIN = (*FINISHED, "stopped_early")
"""Statuses of cells that the sweep leaves as they are."""


class SweepRecord:
    """Goes on from the record of an earlier process; raises BadInput if that knows of other cells.

    rate: the learning rate that a cell of a tuned sweep has got. score: of a trial that came to its end.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._file = grid.folder / "sweep.json"
        self.status = {cell.name: "pending" for cell in grid.all}
        self.reason: dict[str, str | None] = dict.fromkeys(self.status)
        self.rate: dict[str, float | None] = dict.fromkeys(self.status)
        self.score: dict[str, float | None] = dict.fromkeys(self.status)
        known = read_json(self._file, Plan) or {"cells": []}
        for entry in (*known["cells"], *known.get("tuning", ())):
            if entry["cell"] not in self.status:
                raise BadInput(
                    f"sweep {grid.name!r} has a cell {entry['cell']} that this command leaves out: "
                    f"give all its axes, or sweep.name=OTHER"
                )
            self.status[entry["cell"]] = entry["status"]
            self.reason[entry["cell"]] = entry.get("reason")
            self.rate[entry["cell"]], self.score[entry["cell"]] = entry.get("rate"), entry.get("accuracy")

    def finished(self, cell: Cell) -> bool:
        return self.status[cell.name] in NOT_STARTED_AGAIN

    def put(self, cell: Cell, status: str, reason: str | None = None) -> None:
        self.status[cell.name], self.reason[cell.name] = status, reason
        self.write()

    def write(self) -> None:
        content: dict[str, Any] = {"name": self._grid.name, "conf": self._grid.conf, "axes": self._grid.axes}
        content["cells"] = [self._entry(cell) for cell in self._grid.cells]
        if self._grid.trials:
            content["tuning"] = [self._entry(cell) for cell in self._grid.trials]
        replace_text(self._file, json.dumps(content, indent=2) + "\n")

    def _entry(self, cell: Cell) -> dict[str, Any]:
        entry = {
            "cell": cell.name,
            "overrides": cell.overrides,
            "run": cell.name,
            "status": self.status[cell.name],
            "reason": self.reason[cell.name],
        }
        tuned = {"rate": self.rate[cell.name]} if cell.rates else {}
        tried = {"rung": cell.trial.rung, "accuracy": self.score[cell.name]} if cell.trial else {}
        return {**entry, **tuned, **tried}
