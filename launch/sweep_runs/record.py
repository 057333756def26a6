"""sweep.json: how every cell of a sweep stands, whole after any crash."""

import json
from typing import Any

from actors.storage.contents import Plan
from actors.storage.files import read_json, replace_text
from actors.storage.run_record import FINISHED
from conf.errors import BadInput
from launch.sweep_runs.grid import Cell, Grid


class SweepRecord:
    """Goes on from the record of an earlier process; raises BadInput if that knows of other cells."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._file = grid.folder / "sweep.json"
        self.status = {cell.name: "pending" for cell in grid.cells}
        self.reason: dict[str, str | None] = dict.fromkeys(self.status)
        for entry in (read_json(self._file, Plan) or {"cells": []})["cells"]:
            if entry["cell"] not in self.status:
                raise BadInput(
                    f"sweep {grid.name!r} has a cell {entry['cell']} that this command leaves out: "
                    f"give all its axes, or sweep.name=OTHER"
                )
            self.status[entry["cell"]] = entry["status"]
            self.reason[entry["cell"]] = entry.get("reason")

    def finished(self, cell: Cell) -> bool:
        return self.status[cell.name] in FINISHED

    def put(self, cell: Cell, status: str, reason: str | None = None) -> None:
        self.status[cell.name], self.reason[cell.name] = status, reason
        self.write()

    def write(self) -> None:
        content: dict[str, Any] = {"name": self._grid.name, "conf": self._grid.conf, "axes": self._grid.axes}
        content["cells"] = [self._entry(cell) for cell in self._grid.cells]
        replace_text(self._file, json.dumps(content, indent=2) + "\n")

    def _entry(self, cell: Cell) -> dict[str, Any]:
        return {
            "cell": cell.name,
            "overrides": cell.overrides,
            "run": cell.name,
            "status": self.status[cell.name],
            "reason": self.reason[cell.name],
        }
