from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from launch.sweep_runs.view import Line, render, results


def line(rank: int, seed: int, after: float | None) -> Line:
    final = None if after is None else {"pass@1": after, "ci95": [after - 0.1, after + 0.1]}
    summary: dict[str, Any] = {"eval": {"base": {"pass@1": 0.1}, "final": final}}
    status = "failed" if after is None else "completed"
    cell = f"r{rank}-learning_rate=0.0001-seed{seed}"
    return Line(cell, status, None, 200.0, 240.0, 12, 0.5, summary)


LINES = [line(8, 0, 0.4), line(64, 0, 0.7), line(8, 1, 0.6), line(64, 1, None), line(8, 10, 0.5)]


def shown(part: RenderableType, width: int) -> str:
    screen = StringIO()
    Console(width=width, file=screen).print(part)
    return screen.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_tables_read_within_the_screen(width: int) -> None:
    text = shown(render(LINES, 3600.0), width) + shown(results(LINES), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in ("83% of 4 min", "failed", "0.300–0.500", "about 60 min left"):
        assert words in text
