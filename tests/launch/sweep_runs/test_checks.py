from pathlib import Path

import pytest

from conf.errors import BadInput
from launch.sweep_runs.checks import check_comparable, check_sources
from launch.sweep_runs.grid import read_grid

EXAMS = ("benchmarks=[aime24]", "ranks=[1,2]")
MIXED = "[{source: file:a.csv, weight: 2},{source: file:b.csv}]"
APART = ("validation.every=5", "data.eval_source=file:exam.csv")


@pytest.mark.parametrize(
    ("axis", "others", "possible"),
    [
        ("validation.problems=[8,16]", ["validation.every=5"], False),
        ("validation.problems=[8,16]", [], True),
        ("eval.problems=[8,16]", ["validation.every=5"], False),
        ("data.size=[9000,10000]", ["validation.every=5"], False),
        ("data.template=['{problem}','{problem} =']", ["validation.every=5"], True),
        ("validation.every=[5,6]", [], True),
        ("validation.every=[0,6]", [], False),
        ("data.size=[9000,10000]", ["validation.every=5", "data.source=file:one.csv"], True),
        ("data.size=[9000,10000]", ["validation.every=5", "data.eval_source=reasoning_gym:basic_arithmetic"], False),
        *((axis, APART, True) for axis in ("data.size=[9000,10000]", "data.source=[file:a.csv,file:b.csv]")),
        *((axis, APART, True) for axis in ("data.contamination=[drop,report_only]", "eval.share=[0.2,0.5]")),
        ("data.eval_source=[file:a.csv,file:b.csv]", ["validation.every=5"], False),
        ("data.problem_field=[a,b]", APART, False),
        (f"data.mixture=[{MIXED},{MIXED.replace('2', '3')}]", APART, True),
        (f"data.mixture=[{MIXED},{MIXED.replace('2', '3')}]", ["validation.every=5"], False),
        ("data.source=[file:a.csv,file:b.csv]", ["validation.every=5"], False),
        ("data.template=['{problem}','{problem} =']", EXAMS, False),
        ("eval.temperature=[0.5,1.0]", EXAMS, False),
        ("eval.temperature=[0.5,1.0]", [], True),
        ("learner.learning_rate=[1e-4,1e-5]", [*EXAMS, "validation.every=5"], True),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(axis: str, others: list[str], possible: bool) -> None:
    grid = read_grid(["conf=quickstart", axis, *others])
    if possible:
        check_comparable(grid)
        return
    with pytest.raises(BadInput) as caught:
        check_comparable(grid)
    assert str(caught.value).startswith(axis.partition("=")[0])


@pytest.mark.parametrize("recipe", ["paper", "paper_300", "paper_small"])
def test_recipes_of_sweeps_can_be_compared(recipe: str) -> None:
    check_comparable(read_grid([f"conf={recipe}"]))


@pytest.mark.parametrize("parameters", ["{nonsense: 1},{}", "{},{nonsense: 1}"])
def test_sources_are_read_with_the_settings_of_every_unfinished_run(parameters: str, tmp_path: Path) -> None:
    grid = read_grid(["conf=quickstart", f"run.folder={tmp_path}", f"data.parameters=[{parameters}]"])
    with pytest.raises(BadInput, match="nonsense"):
        check_sources(grid)
    for run in grid.runs:
        run.folder.mkdir(parents=True)
        (run.folder / "summary.json").write_text('{"status": "completed"}')
    check_sources(grid)
