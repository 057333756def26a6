"""sweep.json, which holds the status of every run and is whole after any crash."""

import json

from actors.storage.contents import Plan
from actors.storage.files import read_json, replace_text
from conf.errors import BadInput
from launch.sweep_runs.grid import Grid


def go_on(grid: Grid) -> None:
    """Take over the statuses of an earlier process. Raise BadInput if it recorded a run that this sweep has not."""
    runs = {run.name: run for run in grid.runs}
    for entry in (read_json(grid.folder / "sweep.json", Plan) or {"cells": []})["cells"]:
        if (run := runs.get(entry["cell"])) is None:
            raise BadInput(
                f"sweep {grid.name!r} has a run {entry['cell']} that this command leaves out: "
                "give all its axes, or sweep.name=OTHER"
            )
        run.status, run.reason = entry["status"], entry.get("reason")


def write_record(grid: Grid) -> None:
    runs = [
        {"cell": run.name, "overrides": run.overrides, "run": run.name, "status": run.status, "reason": run.reason}
        for run in grid.runs
    ]
    content = {"name": grid.name, "conf": grid.conf, "axes": grid.axes, "cells": runs}
    replace_text(grid.folder / "sweep.json", json.dumps(content, indent=2) + "\n")
