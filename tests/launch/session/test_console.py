import io
from dataclasses import replace

import pytest

from microbudget_rl.actors.messages import Progress
from microbudget_rl.conf.command import PlainConsole
from microbudget_rl.launch.session.console import RunView, render_progress

ROW = {
    "update": 12,
    "reward/mean": 0.34,
    "reward/accuracy": 0.31,
    "response/mean_length": 9.1,
    "rollout/tokens_per_second": 512.0,
    "groups/zero_variance": 0.25,
    "errors/unanimous": 0.3,
    "tokens/useful_fraction": 0.6,
}
TRAINING = Progress("training", 12, spent=192.0, left=408.0, updates_left=18, latest=ROW)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_display_has_all_figures_at_every_width(width: int):
    PlainConsole(width=width, file=(file := io.StringIO())).print(render_progress(replace(TRAINING, cost=1.25)))
    shown = file.getvalue()
    for words in ("update 12 (about 18 more)", "reward 0.34", "accuracy 0.31", "length 9", "512 tok/s", "cost 1.25"):
        assert words in shown
    for words in ("groups with variance 75%", "useful tokens 60%", "6.8 min left"):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= width


def lines_of(*shown: Progress) -> list[str]:
    file = io.StringIO()
    with RunView(PlainConsole(width=200, file=file)) as view:
        for progress in shown:
            view.show(progress)
    return file.getvalue().splitlines()


def test_without_a_terminal_every_update_is_one_line_with_its_own_figures():
    begun = replace(TRAINING, updates=13)  # its version is there, its row is not
    done = replace(begun, latest={**ROW, "update": 13, "reward/accuracy": 0.4})
    lines = lines_of(TRAINING, TRAINING, begun, done, replace(done, phase="finishing"))
    assert [line.partition("] ")[2].split()[:3] for line in lines] == [
        ["training", "update", "12"],
        ["training", "update", "13"],
        ["finishing", "update", "13"],
    ]
    assert "accuracy 0.40" in lines[1]


def test_the_start_names_its_steps_and_the_base_models_result():
    starting = Progress("starting", 0, 1.0, 599.0, None, doing="engine, learner and reward workers start")
    measured = replace(starting, doing="checking that the engine serves the adapters it is given")
    measured = replace(measured, scores={"Base model: held-out": 0.074})
    assert [line.partition("] ")[2] or line for line in lines_of(starting, starting, measured, measured)] == [
        "starting  engine, learner and reward workers start",
        "Base model: held-out pass@1 0.074",
        "starting  checking that the engine serves the adapters it is given",
    ]
