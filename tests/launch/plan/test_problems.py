import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from conf.errors import BadInput
from conf.load import FOLDER, load
from launch.hardware.machine import detect
from launch.plan.plan import make_plan, with_problems
from launch.plan.problems import Problems, count_problems
from launch.plan.view import render

EXAMPLE = FOLDER / "mine.csv"


def test_the_example_beside_the_recipe_is_enough_for_it() -> None:
    config = load(["conf=mine", f"data.source=file:{EXAMPLE}"])
    assert count_problems(config) == Problems(train=15, heldout=5, left_out=0)
    assert r"\boxed{}" in config.data.template
    assert load(["conf=mine"]).data.source == f"file:{EXAMPLE.relative_to(FOLDER.parent.parent)}"


def test_a_plan_says_how_many_problems_a_file_has() -> None:
    plan = with_problems(
        make_plan(load(["conf=mine", f"data.source=file:{EXAMPLE}", "model.dtype=float32"]), detect("cpu"))
    )
    assert plan.config.eval.problems == 5
    screen = StringIO()
    Console(width=200, file=screen).print(render(plan, None))
    assert "mine.csv: 15 problems to train on, 2 updates an epoch" in screen.getvalue()


def test_columns_of_other_names_are_refused_by_the_plan_too(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("q,a\n1 + 1,2\n")
    with pytest.raises(BadInput, match=r"set it to one of its fields \(q, a\)"):
        count_problems(load(["conf=mine", f"data.source=file:{tmp_path / 'own.csv'}"]))


def test_problems_of_their_own_to_hold_out(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "exam.csv")
    config = load(["conf=mine", f"data.source=file:{EXAMPLE}", f"data.eval_source=file:{tmp_path / 'exam.csv'}"])
    assert count_problems(config) == Problems(train=20, heldout=20, left_out=0)
    assert count_problems(load(["conf=quickstart"])) is None
