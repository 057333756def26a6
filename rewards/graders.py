"""The functions that a worker process runs, by name. None is trusted to end, or to leave memory alone.

`compare`: judges (gold, answer) by the rules of `rewards.verify`
`readable`: tells whether a gold answer can be read
`reasoning_gym`: lets a generator score an answer to one of its entries
`import:module:function`: a user's own part of the reward
"""

import json
import math
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from rewards.functions import find
from rewards.verify import compare
from rewards.verify.comparison import readable

COMPARE = "compare"
READABLE = "readable"
REASONING_GYM = "reasoning_gym"
IMPORT = "import:"

FULL_SCORE = 1.0
"""Generators give part of it for near misses and hedging; only the full score is an answer."""


@lru_cache(maxsize=64)
def resolve(name: str) -> Callable[..., Any]:
    """Return the function of a name, ready to run: imports and first use are paid here, outside any deadline."""
    if name.startswith(IMPORT):
        function = find("reward.custom", name.removeprefix(IMPORT))
        return lambda *arguments: _finite(function(*arguments))
    if name == REASONING_GYM:
        import reasoning_gym  # noqa: F401

        return score_entry
    compare(r"\sqrt{2}", r"\frac{2}{\sqrt{2}}")
    return readable if name == READABLE else compare


def _finite(value: Any) -> float:
    """Return a reward as a number. Raises ValueError for what would make a whole update worthless."""
    if not math.isfinite(number := float(value)):
        raise ValueError(f"a reward of {number}")
    return number


def folder_of(name: str) -> Path:
    """Return the folder of the module that a user's function is in."""
    module = sys.modules[name.removeprefix(IMPORT).partition(":")[0]]
    return Path(module.__file__ or "").parent


def score_entry(grader: str, answer: str) -> bool:
    """Whether the generator's own `score_answer` gives the full score. grader: JSON of `rewards.problems.sources`."""
    asked = json.loads(grader)
    entries = _entries(asked["generator"], json.dumps(asked["settings"]))
    return entries.score_answer(answer, entries[asked["index"]]) >= FULL_SCORE


@lru_cache(maxsize=4)
def _entries(generator: str, settings: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(generator, **json.loads(settings))
