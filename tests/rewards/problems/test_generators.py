"""Which of reasoning_gym's generators run the model's answer: found by attacking them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from reasoning_gym.factory import DATASETS

from conf.errors import BadInput
from rewards.generators import REFUSED, RUN_THE_ANSWER
from tests.rewards.problems.rows import Loader


def test_the_generators_that_run_answers_are_refused() -> None:
    subprocess.run([sys.executable, "-m", "tests.rewards.problems.attack", "found.json"], check=True)
    attacked = json.loads(Path("found.json").read_text())
    assert attacked.keys() == DATASETS.keys()
    assert {name for name, found in attacked.items() if found["evaluates"]} <= RUN_THE_ANSWER
    assert {name for name, found in attacked.items() if found["touches"]} == RUN_THE_ANSWER


@pytest.mark.parametrize("key", ["data.source", "data.eval_source"])
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_generators_without_safe_scoring_are_refused(name: str, key: str, loader: Loader) -> None:
    loader.refuse({key: f"reasoning_gym:{name}"}, key, name, REFUSED[name], "file:")


def test_no_refused_generator_is_suggested(loader: Loader) -> None:
    with pytest.raises(BadInput) as refused:
        loader.load({"data.source": "reasoning_gym:count_down"})
    assert [name for name in REFUSED if name in str(refused.value)] == []
