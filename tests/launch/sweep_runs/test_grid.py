from pathlib import Path

import pytest

from conf.errors import BadInput
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


def test_settings_that_are_lists_take_a_list_of_lists() -> None:
    modules = "lora.target_modules"
    assert names("ranks=[8]", f"{modules}=[q_proj,v_proj]") == ["r8"]
    assert names(f"{modules}=[[q_proj],[q_proj,v_proj]]") == ["target_modules=q_proj", "target_modules=q_proj_v_proj"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to sweep", "ranks=[8,64]"]),
        (["ranks=[]"], ["lora.rank=[]", "without values"]),
        (["ranks=[8,8]"], ["named r8", "once"]),
        (["ranks=[8]", "lora.rank=4"], ["lora.rank is twice"]),
        (["models=[instruct,/x]"], ["mixed"]),
        (["models=[null]"], ["models=[null]", "null is no text"]),
        *(([f"{key}=[1,2]"], [f"{key}=[1,2]", "one value"]) for key in ("plan", "limit")),
        ([f"seeds={[*range(400)]}", f"ranks={[*range(1, 401)]}"], ["160,000 runs", "1,000"]),
        (["ranks=[8]", "run.name=x"], ["run.name=x", "sweep.name"]),
        (["ranks=[8]", "sweep.foo=3"], ["sweep.foo: no such key", "nearest: sweep."]),
        (["ranks=[8]", "sweep.minutes=9", "budget.minutes=4"], ["budget.minutes", "keep one"]),
    ],
)
def test_anything_else_is_refused(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        read_grid(["conf=quickstart", *arguments])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
