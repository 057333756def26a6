import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import BadInput
from launch.sweep_runs.grid import read_grid
from launch.sweep_runs.record import SweepRecord


def test_record_is_whole_and_goes_on(tmp_path: Path) -> None:
    arguments = ["conf=quickstart", "ranks=[8,64]", f"run.folder={tmp_path}"]
    grid = read_grid(arguments)
    grid.folder.mkdir()
    budgets = dict.fromkeys(("r8", "r64", "r256"), 60.0)
    record = SweepRecord(grid, budgets)
    record.standings["r8"].status, record.standings["r8"].reason = "failed", "why"
    record.write()
    content: dict[str, Any] = json.loads((grid.folder / "sweep.json").read_text())
    assert content == {
        "name": "quickstart-sweep",
        "conf": "quickstart",
        "axes": {"lora.rank": [8, 64]},
        "cells": [
            {"cell": "r8", "overrides": {"lora.rank": 8}, "run": "r8", "status": "failed", "reason": "why"},
            {"cell": "r64", "overrides": {"lora.rank": 64}, "run": "r64", "status": "pending", "reason": None},
        ],
    }
    more = read_grid([*arguments[:1], "ranks=[8,64,256]", *arguments[2:]])
    standings = SweepRecord(more, budgets).standings.values()
    assert [standing.status for standing in standings] == ["failed", "pending", "pending"]
    with pytest.raises(BadInput, match="r8"):
        SweepRecord(read_grid([*arguments[:1], "ranks=[64]", *arguments[2:]]), budgets)
