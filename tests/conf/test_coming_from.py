"""Names of other projects are answered with ours."""

import re
from pathlib import Path

import pytest
import yaml

from conf import errors
from conf.errors import BadInput
from conf.load import load
from conf.schema import Config
from conf.settings import settings
from tests.conftest import ROOT

NAMES = yaml.safe_load(Path(errors.__file__).with_name("coming_from.yaml").read_text("utf-8"))


def test_the_table_names_our_settings_as_the_page_does() -> None:
    known = {item.path for item in settings(Config)}
    assert {*NAMES.values()} <= {*known, None}
    assert not known & NAMES.keys()
    page = (ROOT / "docs" / "reference" / "coming-from.md").read_text("utf-8")
    rows = re.findall(r"^\| `(?:[\w.]*\.)?(\w+)` \| (?:`([\w.]+)`|not supported) \|", page, re.MULTILINE)
    assert {*rows} == {(name.rpartition(".")[2], ours or "") for name, ours in NAMES.items()}


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("num_generations=8", "rollout.samples_per_problem"),
        ("learner.beta=0.1", "algorithm.kl"),
        ("actor_rollout_ref.model.path=x", "model.path"),
        ("custom_reward_function.path=x", "reward.custom"),
        ("--beta", "algorithm.kl"),
        ("model.load_in_4bit=true", ""),
    ],
)
def test_foreign_keys_are_answered_with_ours(typed: str, ours: str) -> None:
    with pytest.raises(BadInput, match=f"^[^\n]*nearest: {ours}\\b(?!,)" if ours else "no such key; `python"):
        load(["conf=quickstart", typed])
