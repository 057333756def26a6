from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from conf.load import load
from launch.sweep_runs.grid import SweepRun
from launch.sweep_runs.view import render
from tests.run_folders import write_run


def ended(folder: Path, seed: int, status: str) -> SweepRun:
    name = f"r64-learning_rate=0.0001-seed{seed}"
    write_run(folder / name, status=status, after=None if status == "failed" else 12)
    (folder / name / "spent.json").write_text('{"spent_s": 200.0}')
    return SweepRun(name, {}, (), load(["conf=quickstart", f"run.folder={folder}", "budget.minutes=4"]), status)


@pytest.mark.parametrize("width", [80, 120])
def test_table_reads_within_the_screen(width: int, tmp_path: Path) -> None:
    screen = StringIO()
    runs = [ended(tmp_path, seed, status) for seed, status in enumerate(("completed", "failed"))]
    Console(width=width, file=screen).print(render(runs))
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in ("83%", "failed", "→ 0.500"):
        assert words in text
