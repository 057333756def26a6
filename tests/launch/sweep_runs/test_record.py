import json
from pathlib import Path

import pytest

from conf.errors import BadInput
from launch.sweep_runs.grid import read_grid
from launch.sweep_runs.record import restore_statuses, write_record


def test_record_is_whole_and_goes_on(tmp_path: Path) -> None:
    arguments = ["conf=quickstart", f"run.folder={tmp_path}"]
    grid = read_grid([*arguments, "ranks=[8,64]"])
    grid.folder.mkdir()
    grid.runs[0].status, grid.runs[0].reason = "failed", "why"
    write_record(grid)
    assert json.loads((grid.folder / "sweep.json").read_text()) == {
        "name": "quickstart-sweep",
        "conf": "quickstart",
        "axes": {"lora.rank": [8, 64]},
        "cells": [
            {"cell": "r8", "overrides": {"lora.rank": 8}, "run": "r8", "status": "failed", "reason": "why"},
            {"cell": "r64", "overrides": {"lora.rank": 64}, "run": "r64", "status": "pending", "reason": None},
        ],
    }
    more = read_grid([*arguments, "ranks=[8,64,256]"])
    restore_statuses(more)
    assert [run.status for run in more.runs] == ["failed", "pending", "pending"]
    with pytest.raises(BadInput, match="r8"):
        restore_statuses(read_grid([*arguments, "ranks=[64]"]))
