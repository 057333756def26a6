import io
from pathlib import Path

from rich.console import Console

from launch.sweep_runs.grid import read_grid
from launch.sweep_runs.view import render


def test_updates_are_counted_without_reading_the_rows(tmp_path: Path) -> None:
    """The table is shown every second."""
    grid = read_grid(["conf=quickstart", f"run.folder={tmp_path}", "ranks=[8,64]"])
    grid.runs[0].record.path.mkdir(parents=True)
    grid.runs[0].record.metrics.write_text("not JSON\n" * 17 + '{"upd')
    Console(file=(shown := io.StringIO())).print(render(grid.runs))
    assert "17" in shown.getvalue()
