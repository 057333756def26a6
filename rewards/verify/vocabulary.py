"""The words that may follow a number without changing it. vocabulary.yaml lists and explains them."""

import re
from pathlib import Path

import yaml

_LISTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _words(name: str) -> frozenset[str]:
    return frozenset(_LISTS[name].split())


def _with_plurals(words: frozenset[str]) -> frozenset[str]:
    return words | {f"{word}s" for word in words}


KNOWN = {
    form: unit
    for unit, spellings in _LISTS["units"].items()
    for word in spellings.split()
    for form in ({word} if len(word) == 1 else _with_plurals(frozenset({word})))
}
"""Units of measurement, by each of their spellings."""

COUNTED = _with_plurals(_words("counted")) | _words("counted_plurals")
ASIDE = _words("aside")
NO_UNIT = _words("no_unit")

TOGETHER = re.compile(
    r"\b(?:in (?:all|total)|all together|altogether|more|total|left(?: over)?|remaining|overall|each|apiece)\b"
)
"""Words that belong to an amount without a unit: 5 more, 5 in all."""
