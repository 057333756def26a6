r"""Answers and their status, written for this project: (gold, content of the box, expected status, rule).

The cases are in `cases/`, by topic. C is correct, W wrong, U unparsable. A fourth entry is the key of the rule because
of which math-verify, left to itself on the whole response, says otherwise; without one, it agrees that the answer is
right or not. Three files have whole responses: `heldout`, which the rules were not tuned on, `classes`, by class of
answer, which they were tuned on, and `classes_heldout`, written afterwards.
"""

from pathlib import Path
from typing import NamedTuple

import yaml

from microbudget_rl.actors.messages import Sample, Status

CASES = Path(__file__).parent / "cases"
STATUSES = {"C": Status.CORRECT, "W": Status.WRONG, "U": Status.UNPARSABLE}

RULES = {
    "WRITTEN_OUT": "a number asks for a number, not for a computation of it",
    "ONE_ANSWER": "several values where one is asked for are wrong",
    "ORDER": "parentheses and brackets mean it, braces and bare lists do not",
    "UNITS": "units are known, may be left out, and must not contradict",
    "TAILS": "words after a number are a unit or things, which must not contradict, or change the number",
    "BASES": "a base that is not asked for changes the number",
    "EXACT": "decimals count as they stand, and small ones are not zero",
    "WORDS": "words are compared as words, and number words are numbers",
    "CHOICE": "a choice is given by its letter, its value or both",
    "NAMES": "what names a value is left out; x = 3 is not y = 3, and 2x = 3 is not 3",
    "CHAIN": "a chain of equalities is an answer if its parts agree",
    "SPELLING": "the same answer in other characters",
    "SUBSCRIPT": "a subscript has all its digits",
    "PM": "plus or minus stands for two values, in braces, too",
    "INEQUALITY": "simple inequalities are intervals",
    "UNION": "inequalities joined by or, and set-builders, are unions",
    "LETTERS": "t and c are no units, and cos t is not cos",
    "IMAGINARY": "i is the imaginary unit beside a digit, too",
    "RATIO": "ratios and times are compared part by part, and a time is no ratio",
    "PRODUCTS": "letters side by side are a product, and have their case",
    "FUNCTIONS": "derivatives, inverse functions and accents make other letters",
    "STRUCK": "struck-out text is no answer",
    "POWERS": "an equation is not a power of itself",
    "MIXED": "the fraction of a mixed number is positive and below 1",
    "VECTOR": "a row or column of cells is a tuple",
    "BRACKETS": "bars around a matrix are its determinant, and braces around a set another set",
}


class Case(NamedTuple):
    gold: str
    answer: str
    status: Status
    rule: str | None = None


def read(name: str) -> dict[str, list[Case]]:
    """Return the cases of a file by topic."""
    text = (CASES / f"{name}.yaml").read_text(encoding="utf-8")
    topics = yaml.load(text, yaml.CSafeLoader)  # each collection reads them, and the loader in Python is slow
    return {
        topic: [
            Case(gold, answer, STATUSES[status], *(RULES[key] for key in rule)) for gold, answer, status, *rule in rows
        ]
        for topic, rows in topics.items()
    }


FILES: tuple[str, ...] = (
    "numbers",
    "units",
    "names",
    "words",
    "expressions",
    "collections",
    "intervals",
    "spelling",
    "refusals",
)
FILES += ("things", "notation", "near_misses", "unseen", "readings")

CORPUS: dict[str, list[Case]] = {f"{file}, {topic}": cases for file in FILES for topic, cases in read(file).items()}

CORPUS["not printable"] = [
    Case("\x0crac{3}{8}", r"\frac38", Status.CORRECT, RULES["SPELLING"]),
    Case("12", "\x00\x01", Status.UNPARSABLE),
    Case("12", "\ud800", Status.UNPARSABLE),
    Case("12", "1\x002", Status.UNPARSABLE),
    Case("12", "1" * 1001, Status.UNPARSABLE),
]


def sample(text: str, tokens: int = 1) -> Sample:
    return Sample((0,) * tokens, (0.0,) * tokens, text, "stop")
