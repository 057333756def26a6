"""The recipes and the reward functions of docs/start/gallery."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from microbudget_rl.conf.load import load
from microbudget_rl.gallery.my_rewards import briefest, fields
from microbudget_rl.launch.plan.plan import count_problems
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "start" / "gallery"
RECIPES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_on_the_page_and_its_table_holds_out_enough(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    place = recipe.relative_to(ROOT)
    config = load([f"conf={place}"])
    assert f"python launch/run.py conf={place}\n" in FOLDER.with_suffix(".md").read_text("utf-8")
    assert config.budget.seconds <= 15 * 60
    if config.data.source.startswith("file:"):  # a generator takes its time
        found = count_problems(config)
        assert found
        assert found.heldout == config.eval.problems
        assert found.train >= 200


PERSON = {"name": "Ann", "age": 34, "city": "Rome"}


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        (json.dumps(PERSON), 1.0),
        (json.dumps(PERSON | {"age": "34"}), 0.75),
        (json.dumps(PERSON | {"country": "Italy"}), 0.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_fields_counts_those_of_a_json_object(response: str, reward: float) -> None:
    assert fields("", response, json.dumps(PERSON)) == reward


def test_briefest_ranks_the_right_ones() -> None:
    texts = ["so it is \\boxed{7}", "\\boxed{7}", "\\boxed{8}", "it is \\boxed{7}", "\\boxed{7}"]
    assert briefest([SimpleNamespace(response=text, gold="7") for text in texts]) == [0.25, 1.0, 0.0, 0.5, 1.0]
