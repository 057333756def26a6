"""Functions of a Python session: when two are the same, which cannot be shipped, and who loads them."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.messages import Problem
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import CustomRewardConfig, RewardConfig
from microbudget_rl.rewards.pool import VerifierPool, check_functions
from microbudget_rl.rewards.shipped import FOLDER, digest, ship
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.rewards.corpus import sample

SOURCE = """
import math, re
WORDS, PATTERN = {words}, re.compile("b+")
def helper(text): return text in {{"a", "b", {constant!r}}} or helper(text[1:]) if text else math.inf
def made(bonus):
    def score(prompt, response, gold, *, start={default}):
        return sum(bonus + len(WORDS) + bool(PATTERN.search(each)) for each in response) + helper(gold) + start
    return score
score = made({bonus})
"""

VALUES = {"words": "{0, 8, 16}", "constant": "c", "default": 0.5, "bonus": 3}


def written(lines: int = 0, file: str = "<cell 1>", **values: Any) -> Callable[..., Any]:
    """The function of a notebook's cell, so many lines further below."""
    names: dict[str, Any] = {"__name__": "__main__", "__file__": file}
    exec(compile("\n" * lines + SOURCE.format(**VALUES | values), file, "exec"), names)
    return names["score"]  # type: ignore[no-any-return]


@given(lines=st.integers(0, 300), file=st.text(min_size=1, max_size=9).filter(lambda text: "\0" not in text))
def test_the_same_code_elsewhere_is_the_same(lines: int, file: str):
    assert digest(written(lines, f"<{file}>")) == digest(written()) == digest(written(words="{16, 8, 0}"))


@given(st.sampled_from([*VALUES]), st.one_of(st.integers(), st.text(), st.floats(-9, 9)))
def test_another_constant_default_closure_or_global_is_another(name: str, value: Any):
    shown = value if name == "constant" else repr(value)
    assert (digest(written(**{name: shown})) == digest(written())) is (shown == str(VALUES[name]))


@pytest.mark.parametrize("value", [threading.Lock(), sys.__stdout__, (each for each in ())])
def test_what_cannot_be_shipped_is_named(value: object):
    with pytest.raises(BadInput, match=r"'lambda'.*module:lambda"):
        ship(lambda prompt, response, gold: value, {})


def test_functions_of_a_module_keep_their_name():
    assert ship(sample, {}) == "tests.rewards.corpus:sample"
    assert all(ship(each, {}).startswith("python.") for each in (written(), lambda: 0, RewardFunction.__call__))


@pytest.mark.long
def test_workers_load_what_is_in_the_private_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Own:
        def bonus(self, completions: list[str]) -> list[int]:
            return [len(each) for each in completions]

    shipped: dict[str, bytes] = {}
    parts = [CustomRewardConfig(ship(each, shipped)) for each in (written(), Own().bonus)]
    config = RewardConfig(custom=parts, sandbox=False)  # a fork server may be older than FOLDER
    for name, content in shipped.items():
        Path(name).write_bytes(content)
    for folder in ("", "elsewhere"):  # a stranger's folder, in which a command is carried out, may have any file
        monkeypatch.setenv(FOLDER, folder)
        with pytest.raises(BadInput, match="resume"):
            check_functions(config)
    monkeypatch.setenv(FOLDER, str(Path.cwd()))
    with VerifierPool(RewardFunction(config), workers=1) as pool:
        [reward] = pool.rewards_all([(Problem("id", "p", (1,), "xb"), sample("ab"))])
    assert [reward.parts[name] for name in ("score", "bonus")] == [2 * (3 + 3) + 1 + 1 + 0.5, 2]
