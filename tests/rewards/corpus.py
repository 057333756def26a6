r"""Answers and their status, written for this project: (gold, content of the box, expected status, rule).

The cases are in `cases/`, by topic. C is correct, W wrong, U unparsable. A fourth entry is the key of the rule because
of which math-verify, left to itself on the whole response, says otherwise; without one, it agrees that the answer is
right or not. `heldout` is apart: whole responses, written before the rules, that the rules were not tuned on.
"""

from pathlib import Path
from typing import NamedTuple

import yaml

from actors.messages import Sample, Status

CASES = Path(__file__).parent / "cases"
STATUSES = {"C": Status.CORRECT, "W": Status.WRONG, "U": Status.UNPARSABLE}

RULES: dict[str, str] = yaml.safe_load((CASES / "rules.yaml").read_text(encoding="utf-8"))


class Case(NamedTuple):
    gold: str
    answer: str
    status: Status
    rule: str | None = None


def read(name: str) -> dict[str, list[Case]]:
    """Return the cases of a file by topic."""
    topics = yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))
    return {
        topic: [
            Case(gold, answer, STATUSES[status], *(RULES[key] for key in rule)) for gold, answer, status, *rule in rows
        ]
        for topic, rows in topics.items()
    }


FILES = ("numbers", "units", "names", "words", "expressions", "collections", "intervals", "spelling", "refusals")

CORPUS: dict[str, list[Case]] = {topic: cases for file in FILES for topic, cases in read(file).items()}

CORPUS["not printable"] = [
    Case("\x0crac{3}{8}", r"\frac38", Status.CORRECT, RULES["SPELLING"]),
    Case("12", "\x00\x01", Status.UNPARSABLE),
    Case("12", "\ud800", Status.UNPARSABLE),
    Case("12", "1\x002", Status.UNPARSABLE),
    Case("12", "1" * 1001, Status.UNPARSABLE),
]


def sample(text: str, tokens: int = 1) -> Sample:
    return Sample((0,) * tokens, (0.0,) * tokens, text, "stop")
