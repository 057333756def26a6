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

VALUE = "value"
"""Grader of an entry whose answer is compared as numbers, up to rounding."""

_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

RUN_THE_ANSWER = frozenset(_TABLE["runs_the_answer"])
REFUSED = {
    **dict.fromkeys(RUN_THE_ANSWER, "runs the model's answer as Python code to score it"),
    **_TABLE["unusable"],
}
"""Sets that cannot be used, each with the reason."""

VALUES = frozenset(_TABLE["numbers"])
"""Sets whose answers are compared as numbers."""

SCORED = _TABLE["scored"]
"""Sets that the library scores, each with a pattern for the words of an answer."""

WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{(.*)\}", re.DOTALL)
BETWEEN = re.compile(r"\s*([-+/(){}])\s*")
AROUND = re.compile(r"\s*([][(){},:;])\s*")
FRACTION = re.compile(r"([-+]?)(?:\\[dt]?frac)?\{?(\d{1,18})(?:\}\{|/)(\d{1,18})\}?")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:/\d+)?")
"""Pattern of gold answers that the rules of `rewards.verify` compare."""

CLOSE = 1e-4
"""Relative difference allowed for a rounded value: four digits, as the sets print."""


def grader_of(generator: str, settings: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return the grader of an entry (see `actors.messages.Problem`). For a scored set it contains the whole entry,
    because some sets take seconds to create it again.
    """
    if generator in SCORED:
        return json.dumps({"generator": generator, "settings": settings, "entry": entry}, default=str)
    return VALUE if generator in VALUES else EXACT


def same_text(gold: str, answer: str) -> bool:
    """Whether an answer equals the gold one apart from case, quotes, and insignificant spaces."""
    return _spelled(gold) == _spelled(answer)


def _spelled(text: str) -> str:
    if wrapped := WRAPPED.fullmatch(text.strip("$ \n")):
        text = wrapped[1]
    lines = filter(None, (" ".join(line.split()) for line in text.splitlines()))
    return AROUND.sub(r"\1", "\n".join(lines)).replace("'", "").replace('"', "").casefold()


def same_values(gold: str, answer: str) -> bool:
    """Whether two answers have the same numbers, in any order and up to rounding."""
    try:
        expected, given = _values(gold), _values(answer)
        pairs = zip(expected, given, strict=True)
        return all(abs(one - other) <= CLOSE * abs(one) for one, other in pairs)
    except (ValueError, ArithmeticError):
        return False


def _values(text: str) -> list[complex]:
    return sorted(map(_value, text.split(",")), key=lambda value: (value.real, value.imag))


def _value(text: str) -> complex:
    """Read a decimal, a fraction or a complex number with i. Raises ValueError for any other text."""
    text = BETWEEN.sub(r"\1", text.strip())
    if match := FRACTION.fullmatch(text):
        sign, above, below = match.groups()
        return complex(int(f"{sign}{above}") / int(below))
    if not re.fullmatch(r"[-+0-9.eEi]+", text):
        raise ValueError(f"no number: {text[:20]}")
    return complex(text.replace("i", "j"))


def score_entry(grader: str, answer: str) -> bool:
    """Whether the library gives an answer the full score. grader: JSON of `grader_of`.

    An answer on which its scoring raises is wrong; errors before that propagate.
    """
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
