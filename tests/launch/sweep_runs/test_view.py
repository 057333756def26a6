from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from conf.load import load
from launch.sweep_runs.grid import Cell
from launch.sweep_runs.record import Standing
from launch.sweep_runs.view import render, results
from tests.run_folders import write_run


def standing(folder: Path, seed: int, status: str) -> Standing:
    """A cell that has ended, in a folder of its own."""
    name = f"r64-learning_rate=0.0001-seed{seed}"
    write_run(folder / name, status=status, after=None if status == "failed" else 12)
    (folder / name / "spent.json").write_text('{"spent_s": 200.0}')
    return Standing(Cell(name, {}, (), load(["conf=quickstart", f"run.folder={folder}"])), 240.0, status)


def shown(part: RenderableType, width: int) -> str:
    screen = StringIO()
    Console(width=width, file=screen).print(part)
    return screen.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_tables_read_within_the_screen(width: int, tmp_path: Path) -> None:
    standings = [standing(tmp_path, seed, status) for seed, status in enumerate(("completed", "failed"))]
    text = shown(render(standings, 3600.0), width) + shown(results(standings), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in ("83% of 4 min", "failed", "0.500", "60 min"):
        assert words in text
