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
    SweepRecord(grid).put(grid.cells[0], "failed", "why")
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
    assert SweepRecord(grid).status == {"r8": "failed", "r64": "pending"}
    assert SweepRecord(read_grid([*arguments[:1], "ranks=[8,64,256]", *arguments[2:]])).status["r256"] == "pending"
    with pytest.raises(BadInput, match=r"has a cell r8 that this command leaves out"):
        SweepRecord(read_grid([*arguments[:1], "ranks=[64]", *arguments[2:]]))
