"""A configuration over a small file, and a user's module."""

import sys
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.json_lines import write_rows
from tests.rewards.problems.rows import SUMS, Loader

MODULE = """
import time

def sums(first, last):
    for i in range(first, last):
        yield {"problem": f"What is {i} + 1?", "answer": i + 1}

def endless():
    number = 0
    while number := number + 1:
        yield {"problem": f"What is {number} + 1?", "answer": number + 1}

def strings():
    yield "1 + 1"

def rude():
    raise KeyboardInterrupt

def gone():
    raise GeneratorExit

def silent():
    yield from sums(0, 9)
    while True:
        time.sleep(1)
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Make a configuration over thirty sums in a file, of which ten are held out."""
    write_rows(tmp_path / "sums.jsonl", SUMS)
    held_out = {"eval.problems": 10, "eval.share": 0.5}
    return changed(Config(), {"data.source": "file:sums.jsonl", "learner.problems_per_update": 4, **held_out})


@pytest.fixture
def loader(config: Config, tiny_tokenizer: Any) -> Loader:
    return Loader(config, tiny_tokenizer)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a user's module into the working folder."""
    (tmp_path / "my_problems.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_problems", raising=False)
    return "my_problems"
