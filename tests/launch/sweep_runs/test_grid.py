from contextlib import nullcontext
from pathlib import Path

import pytest

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch.sweep_runs.grid import check_comparable, check_sources, read_grid

BENCHMARKS = ("benchmarks=[aime24]", "ranks=[1,2]")
MIXED = "[{source: file:a.csv, weight: 2},{source: file:b.csv}]"
APART = ("validation.every=5", "data.eval_source=file:held.csv")


def test_every_list_is_an_axis_and_seeds_change_slowest():
    grid = read_grid(["conf=quickstart", "seeds=[0,1]", "ranks=[8,64]", "learner.learning_rate=[1e-4,2.0e-4]"])
    order = [f"r{rank}-learning_rate={rate}-seed{seed}" for seed in (0, 1) for rank in (8, 64) for rate in (1e-4, 2e-4)]
    assert [run.name for run in grid.runs] == order
    assert grid.axes == {"run.seed": [0, 1], "lora.rank": [8, 64], "learner.learning_rate": [1e-4, 2e-4]}
    assert grid.runs[0].overrides == {"lora.rank": 8, "learner.learning_rate": 1e-4, "run.seed": 0}
    assert (grid.name, grid.folder) == ("quickstart-sweep", Path("runs/quickstart-sweep"))
    one = read_grid(["conf=quickstart", "ranks=[8]", "lora.target_modules=[q_proj,v_proj]"])  # itself a list
    two = read_grid(["conf=quickstart", "lora.target_modules=[[q_proj],[q_proj,v_proj]]"])
    assert [run.name for run in one.runs] == ["r8"]
    assert [run.name for run in two.runs] == ["target_modules=q_proj", "target_modules=q_proj_v_proj"]


def test_models_are_recipes_or_paths():
    recipes = read_grid(["conf=paper", "models=[llama,qwen3]", "ranks=[8,64]"]).runs
    assert [run.name for run in recipes] == ["llama-r8", "llama-r64", "qwen3-r8", "qwen3-r64"]
    assert recipes[2].config.model.path == "Qwen/Qwen3-0.6B"
    paths = read_grid(["conf=paper", "models=[/models/one,owner/two]", "ranks=8"]).runs
    assert [run.overrides for run in paths] == [{"model.path": "/models/one"}, {"model.path": "owner/two"}]
    assert [run.name for run in paths] == ["one", "two"]


def test_a_recipe_states_its_sweep_and_the_command_line_replaces_it():
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


def test_what_a_sweeps_recipe_sets_beyond_its_models_recipe_is_given_to_each_run(tmp_path: Path):
    runs = read_grid(["conf=paper_300"]).runs
    assert {(run.config.budget.updates, run.config.learner.problems_per_update) for run in runs} == {(300, 23)}
    assert {load(run.arguments).budget.updates for run in runs} == {300}
    given = read_grid(["conf=paper_300", "budget.updates=9", "models=[llama]"]).runs
    assert {(run.config.budget.updates, run.config.learner.problems_per_update) for run in given} == {(9, 23)}
    own = tmp_path / "short.yaml"
    own.write_text("extends: paper\nsweep: {models: [llama]}\nbudget: {minutes: 30}\nlora: {rank: 4}\n")
    (run,) = read_grid([f"conf={own}", "budget.hours=2", "ranks=[2]"]).runs
    assert (run.config.budget.seconds, run.config.lora.rank) == (7200, 2)
    (run,) = read_grid([f"conf={own}", "sweep.hours=2"]).runs
    assert (run.config.budget.seconds, run.config.lora.rank) == (24 * 3600, 4)


def test_texts_reach_the_runs_as_they_are_typed(tmp_path: Path):
    (tmp_path / "own.yaml").write_text('extends: paper\nsweep: {models: [llama]}\ndata: {system: "a # b\\n😀"}\n')
    axis = "data.answer_field=['#1',007,1e3]"
    runs = read_grid([f"conf={tmp_path}/own.yaml", "ranks=8", axis, "run.folder=a #b"]).runs
    assert [run.config.data.answer_field for run in runs] == ["#1", "007", "1e3"]
    written = {(run.config.data.system, load(run.arguments).run.folder) for run in runs}
    assert written == {("a # b\n😀", "a #b/own-sweep")}
    assert read_grid(["conf=quickstart", "ranks=[8]", "data.system=[a] #1"]).runs[0].config.data.system == "[a] #1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to sweep", "ranks=[8,64]"]),
        (["ranks=[]"], ["lora.rank=[]", "without values"]),
        (["ranks=[8,8]"], ["named r8", "once"]),
        (["ranks=[8] # low"], ["comment", "quote it"]),
        (["plan=[true,false]"], ["plan=[true,false]", "one value"]),
        (["device=[auto,cpu]"], ["device: ", "one value"]),
        (["models=[/x,/base-x]", "benchmarks=[aime24]"], ["base-x", "rename"]),
        (["ranks=[8]", "lora.rank=4"], ["lora.rank is twice"]),
        (["models=[instruct,/x]"], ["mixed"]),
        (["ranks=[8]", "run.name=x"], ["run.name=x", "sweep.name"]),
        (["ranks=[8]", "sweep.foo=3"], ["sweep.foo: no such key", "nearest: sweep."]),
        (["ranks=[8]", "benchmarks=[aime24]", "n=4"], ["n=4", "n=16", "sweep.pass_at=[1,4]"]),
        (["ranks=[8]", "benchmarks=[aime42]"], ["aime42", "aime24"]),
        (["ranks=[8]", "benchmarks=[file:a/x.csv,file:b/x.csv]"], ["called x"]),
        (["ranks=[8]", "base=runs/s/base/evaluation"], ["base=", "sweep.benchmarks"]),
        (["ranks=[8]", "sweep.minutes=9", "budget.minutes=4"], ["budget.minutes", "keep one"]),
    ],
)
def test_anything_else_is_refused(arguments: list[str], words: list[str]):
    with pytest.raises(BadInput) as caught:
        read_grid(["conf=quickstart", *arguments])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


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
        ("data.template=['{problem}','{problem} =']", BENCHMARKS, False),
        ("eval.temperature=[0.5,1.0]", BENCHMARKS, False),
        ("eval.temperature=[0.5,1.0]", [], True),
        ("learner.learning_rate=[1e-4,1e-5]", [*BENCHMARKS, "validation.every=5"], True),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(axis: str, others: list[str], possible: bool):
    grid, key = read_grid(["conf=quickstart", axis, *others]), axis.partition("=")[0]
    with nullcontext() if possible else pytest.raises(BadInput, match=f"^{key}"):
        check_comparable(grid)


@pytest.mark.parametrize("parameters", ["{nonsense: 1},{}", "{},{nonsense: 1}"])
def test_sources_are_read_with_the_settings_of_every_unfinished_run(parameters: str, tmp_path: Path):
    grid = read_grid(["conf=quickstart", f"run.folder={tmp_path}", f"data.parameters=[{parameters}]"])
    with pytest.raises(BadInput, match="nonsense"):
        check_sources(grid)
    for run in grid.runs:
        run.folder.mkdir(parents=True)
        (run.folder / "summary.json").write_text('{"status": "completed"}')
    check_sources(grid)
