"""reasoning_gym's data sets: which ones are refused, and how answers to the others are verified.

The library's own scoring is so lenient that "nan", a prefix or any text earns the full score in some sets. It therefore
decides only where an entry has several right answers (SCORED); elsewhere an answer must equal the entry's own.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

EXACT = "exact"
"""Grader of an entry whose answer is compared as text, or as a number if it is one."""

_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

RUN_THE_ANSWER = frozenset(_TABLE["runs_the_answer"])
REFUSED = {
    **dict.fromkeys(RUN_THE_ANSWER, "runs the model's answer as Python code to score it"),
    **_TABLE["unusable"],
}
"""Sets that cannot be used, each with the reason."""

SCORED = _TABLE["scored"]
"""Sets that the library scores, each with a pattern for the words of an answer."""

WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{(.*)\}", re.DOTALL)
AROUND = re.compile(r"\s*([][(){},:;])\s*")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:/\d+)?")
"""Pattern of gold answers that the rules of `rewards.verify` compare."""


def grader_of(generator: str, settings: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return the grader of an entry (see `actors.messages.Problem`). For a scored set it contains the whole entry,
    because some sets take seconds to create it again.
    """
    if generator in SCORED:
        return json.dumps({"generator": generator, "settings": settings, "entry": entry}, default=str)
    return EXACT


def same_text(gold: str, answer: str) -> bool:
    """Whether an answer equals the gold one apart from case, quotes, and insignificant spaces."""
    return _spelled(gold) == _spelled(answer)


def _spelled(text: str) -> str:
    if wrapped := WRAPPED.fullmatch(text.strip("$ \n")):
        text = wrapped[1]
    lines = filter(None, (" ".join(line.split()) for line in text.splitlines()))
    return AROUND.sub(r"\1", "\n".join(lines)).replace("'", "").replace('"', "").casefold()


def score_entry(grader: str, answer: str) -> bool:
    """Whether the library gives an answer the full score. If its scoring raises, the answer is wrong."""
    asked = json.loads(grader)
    entries = _entries(asked["generator"], json.dumps(asked["settings"]))
    word = re.compile(SCORED[asked["generator"]])
    if not all(map(word.fullmatch, answer.split())):
        return False
    try:
        return bool(entries.score_answer(answer, asked["entry"]) >= 1.0)
    except MemoryError:
        raise
    except Exception:
        return False


@lru_cache(maxsize=4)
def _entries(generator: str, settings: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(generator, **json.loads(settings))
