from pathlib import Path

import pytest

from conf.errors import BadInput
from conf.load import load
from launch.sweep_runs.grid import read_grid


def names(*arguments: str) -> list[str]:
    return [run.name for run in read_grid(["conf=quickstart", *arguments]).runs]


def test_every_list_is_an_axis_and_seeds_change_slowest() -> None:
    grid = read_grid(["conf=quickstart", "seeds=[0,1]", "ranks=[8,64]", "learner.learning_rate=[1e-4,2.0e-4]"])
    assert [run.name for run in grid.runs[:5]] == [
        "r8-learning_rate=0.0001-seed0",
        "r8-learning_rate=0.0002-seed0",
        "r64-learning_rate=0.0001-seed0",
        "r64-learning_rate=0.0002-seed0",
        "r8-learning_rate=0.0001-seed1",
    ]
    assert grid.axes == {"run.seed": [0, 1], "lora.rank": [8, 64], "learner.learning_rate": [1e-4, 2e-4]}
    assert grid.runs[0].overrides == {"lora.rank": 8, "learner.learning_rate": 1e-4, "run.seed": 0}
    assert (grid.name, grid.folder) == ("quickstart-sweep", Path("runs/quickstart-sweep"))


def test_models_are_recipes_or_paths() -> None:
    recipes = read_grid(["conf=paper", "models=[llama,qwen3]", "ranks=[8,64]"]).runs
    assert [run.name for run in recipes] == ["llama-r8", "llama-r64", "qwen3-r8", "qwen3-r64"]
    assert recipes[2].config.model.path == "Qwen/Qwen3-0.6B"
    paths = read_grid(["conf=paper", "models=[/models/one,owner/two]", "ranks=8"]).runs
    assert [run.overrides for run in paths] == [{"model.path": "/models/one"}, {"model.path": "owner/two"}]
    assert [run.name for run in paths] == ["one", "two"]


def test_a_recipe_states_its_sweep_and_the_command_line_replaces_it() -> None:
    paper = read_grid(["conf=paper"])
    assert len(paper.runs) == 15
    assert (paper.settings.benchmarks, paper.settings.n) == (["aime24", "aime25", "amc23"], 16)
    assert {run.config.budget.seconds for run in paper.runs} == {24 * 3600}
    own = ["models=qwen3", "ranks=4", "seeds=[0,1]", "benchmarks=[math500]", "n=4", "sweep.pass_at=[1,4]"]
    grid = read_grid(["conf=paper", *own])
    assert [run.name for run in grid.runs] == ["qwen3-seed0", "qwen3-seed1"]
    assert (grid.runs[0].config.lora.rank, grid.settings.benchmarks, grid.settings.n) == (4, ["math500"], 4)
    with pytest.raises(BadInput, match="nothing to sweep"):
        read_grid(["conf=r8_llama"])  # it extends paper
    small = read_grid(["conf=paper_small"])
    assert [run.name for run in small.runs[:3]] == ["r1-seed0", "r8-seed0", "r64-seed0"]
    assert "toy" in small.settings.remark


def test_what_a_sweeps_recipe_sets_beyond_its_models_recipe_is_given_to_each_run(tmp_path: Path) -> None:
    runs = read_grid(["conf=paper_300"]).runs
    assert {(run.config.budget.updates, run.config.learner.problems_per_update) for run in runs} == {(300, 23)}
    assert {load(run.arguments).budget.updates for run in runs} == {300}
    assert {run.config.data.template for run in runs} == {
        run.config.data.template for run in read_grid(["conf=paper"]).runs
    }
    given = read_grid(["conf=paper_300", "budget.updates=9", "models=[llama]"]).runs
    assert {(run.config.budget.updates, run.config.learner.problems_per_update) for run in given} == {(9, 23)}
    own = tmp_path / "short.yaml"
    own.write_text("extends: paper\nsweep: {models: [llama]}\nbudget: {minutes: 30}\nlora: {rank: 4}\n")
    (run,) = read_grid([f"conf={own}", "budget.hours=2", "ranks=[2]"]).runs
    assert (run.config.budget.seconds, run.config.lora.rank) == (7200, 2)
    (run,) = read_grid([f"conf={own}", "sweep.hours=2"]).runs
    assert (run.config.budget.seconds, run.config.lora.rank) == (24 * 3600, 4)


def test_settings_that_are_lists_take_a_list_of_lists() -> None:
    modules = "lora.target_modules"
    assert names("ranks=[8]", f"{modules}=[q_proj,v_proj]") == ["r8"]
    assert names(f"{modules}=[[q_proj],[q_proj,v_proj]]") == ["target_modules=q_proj", "target_modules=q_proj_v_proj"]


def test_texts_reach_the_runs_as_they_are_typed(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text('extends: paper\nsweep: {models: [llama]}\ndata: {system: "a # b\\n😀"}\n')
    axis = "data.answer_field=['#1',007,1e3]"
    runs = read_grid([f"conf={tmp_path}/own.yaml", "ranks=8", axis, "run.folder=a #b"]).runs
    assert [run.config.data.answer_field for run in runs] == ["#1", "007", "1e3"]
    assert {(run.config.data.system, load(run.arguments).run.folder) for run in runs} == {
        ("a # b\n😀", "a #b/own-sweep"),
    }
    assert read_grid(["conf=quickstart", "ranks=[8]", "data.system=[a] #1"]).runs[0].config.data.system == "[a] #1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to sweep", "ranks=[8,64]"]),
        (["ranks=[]"], ["lora.rank=[]", "without values"]),
        (["ranks=[8,8]"], ["named r8", "once"]),
        (["ranks=[8]", "lora.rank=4"], ["lora.rank is twice"]),
        (["models=[instruct,/x]"], ["mixed"]),
        (["models=[null]"], ["models=[null]", "null is no text"]),
        (["plan=[1,2]"], ["plan=[1,2]", "one value"]),
        (["device=[auto,cpu]"], ["device: ", "one value"]),
        (["limit=[1,2]"], ["limit=[1,2]", "whole number"]),
        ([f"seeds={[*range(400)]}", f"ranks={[*range(1, 401)]}"], ["160,000 runs", "1,000"]),
        (["ranks=[8]", "run.name=x"], ["run.name=x", "sweep.name"]),
        (["ranks=[8]", "sweep.foo=3"], ["sweep.foo: no such key", "nearest: sweep."]),
        (["ranks=[8]", "benchmarks=[aime24]", "n=4"], ["n=4", "n=16", "sweep.pass_at=[1,4]"]),
        (["ranks=[8]", "benchmarks=[aime42]"], ["aime42", "aime24"]),
        (["ranks=[8]", "benchmarks=[file:a/x.csv,file:b/x.csv]"], ["called x"]),
        (["ranks=[8]", "base=runs/s/base/evaluation"], ["base=", "sweep.benchmarks"]),
        (["ranks=[8]", "sweep.minutes=9", "budget.minutes=4"], ["budget.minutes", "keep one"]),
    ],
)
def test_anything_else_is_refused(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        read_grid(["conf=quickstart", *arguments])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
