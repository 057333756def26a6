import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from conf.errors import BadInput
from launch.sweep_runs.grid import read_grid
from launch.sweep_runs.record import restore_statuses, write_record
from launch.sweep_runs.view import render


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


def test_updates_are_counted_without_reading_the_rows(tmp_path: Path) -> None:
    """The table is shown every second."""
    grid = read_grid(["conf=quickstart", f"run.folder={tmp_path}", "ranks=[8,64]"])
    grid.runs[0].record.path.mkdir(parents=True)
    grid.runs[0].record.metrics.write_text("not JSON\n" * 17 + '{"upd')
    Console(file=(shown := io.StringIO())).print(render(grid.runs))
    assert "17" in shown.getvalue()
