import io

import pytest
from rich.console import Console

from actors.messages import Progress
from launch.session.console import RunView, clock, figures, render

ROW = {
    "update": 12,
    "reward/mean": 0.34,
    "reward/accuracy": 0.31,
    "completion/mean_length": 9.1,
    "rollout/tokens_per_second": 512.0,
}
TRAINING = Progress("training", 12, spent=192.0, left=408.0, updates_left=18, latest=ROW)


def text_of(renderable: object, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


@pytest.mark.parametrize(("seconds", "shown"), [(-3, "0:00"), (65, "1:05"), (3600, "1:00:00"), (86399, "23:59:59")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize("width", [80, 120])
def test_bar_says_what_is_spent_and_left(width: int) -> None:
    shown = text_of(render(TRAINING), width)
    assert "3:12 of 10:00, 6:48 left" in shown
    assert "update 12 (about 18 more) · reward 0.34 · accuracy 0.31" in shown
    assert len(shown.splitlines()) == 2


def test_entropy_is_shown_only_when_something_was_trained_on() -> None:
    assert "entropy" not in figures(TRAINING)
    trained = Progress("training", 12, 1.0, 1.0, None, {**ROW, "policy/entropy": 0.5})
    assert "entropy 0.50" in figures(trained)


def test_without_a_terminal_every_update_is_one_line() -> None:
    console = Console(file=io.StringIO(), width=200)
    with RunView(console) as view:
        for _ in range(3):
            view.show(TRAINING)
        view.show(Progress("finishing", 12, 600.0, 0.0, 0, ROW))
    output = console.file
    assert isinstance(output, io.StringIO)
    assert [line.split()[1] for line in output.getvalue().splitlines()] == ["training", "finishing"]
