"""Reads the context of a number: currency, percent, degrees, units, bases, moduli."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import yaml

from rewards.verify.numbers import Number, equal, number, without_thousands

VOCABULARY = yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text(encoding="utf-8"))
"""Words that may follow a number. The file explains its lists."""


KNOWN = {
    form: unit
    for unit, spellings in VOCABULARY["units"].items()
    for word in spellings.split()
    for form in ([word] if len(word) == 1 else [word, f"{word}s"])
}
"""Units of measurement, by each of their spellings."""

COUNTED = {form for word in VOCABULARY["counted"].split() for form in (word, f"{word}s")}
COUNTED |= {*VOCABULARY["counted_plurals"].split()}
ASIDE = frozenset(VOCABULARY["aside"].split())
NO_UNIT = frozenset(VOCABULARY["no_unit"].split())

TOGETHER = re.compile(
    r"\b(?:in (?:all|total)|all together|altogether|more|total|left(?: over)?|remaining|overall|each|apiece)\b"
)
"""Words that belong to an amount without a unit: 5 more, 5 in all."""

CURRENCY = re.compile(
    r"([+-]?)\s*(?:\\text\{\s*)?(?:US\s?)?\\?([$€£¥₹]|USD|EUR|GBP|CNY|RMB|INR|Rs)\.?\s*\}?\s*(?=[-+.\d\\])"
)
BASE = re.compile(r"([+-]?[0-9A-F]*\d[0-9A-F]*)_(?:(\d)|\{(\d{1,2})\})")
DEGREE = re.compile(r"(.*\S)\s*\^\\circ\s*(?:\\text\{)?\s*(C|F|[Cc]elsius|[Ff]ahrenheit)?\s*\}?")
DEGREES = {"": "degree", "c": "celsius", "f": "fahrenheit"}
PERCENT = re.compile(r"(.*\S)\s*(?:%|\\text\{\s*(?:%|percent|per cent)\s*\}|(?<=[\d} ])\s*per ?cent)")
POWER = r"(\^\s*\{?\s*[23]\s*\}?)?"
TAIL = re.compile(rf"(.*\S)\s*\\text\{{([^{{}}\d]*)\}}\s*{POWER}")
WORDS_AFTER = re.compile(
    rf"(.*[\d}}])\s+(?![A-Za-z](?: [A-Za-z])+(?![A-Za-z]))([A-Za-z](?:[A-Za-z./ -]*[A-Za-z.])?)\s*{POWER}"
)
GLUED = re.compile(rf"(.*\d)(mm|cm|km|kg|mg|ml|ft|hr|[A-Za-z]|[A-Za-z]{{3,}})\s*{POWER}")
"""A unit without a space. A single letter counts only if it is the gold answer's."""

MODULUS = re.compile(r"(.*\S)\s*\\mod\{(\w+)\}")
MEASURE = re.compile(
    r"(\d+(?:\.\d+)?)\s?(?:\\text\{\s?)?([A-Za-z]+)\.?,?(?:\s?and)?\s?\}?,?\s?(?:\\text\{\s?and\s?\}|and)?\s?"
)
COMPOUND = ("year month week day h min s", "yd ft in", "lb oz", "dollar cent")
"""Units that form one amount together, larger ones first."""

WORD = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+)*\.?|\S")
AREAS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}


@dataclass(frozen=True)
class Quantity:
    """A scalar answer and its unit.

    body: the answer without its unit
    unit: a unit of measurement in one spelling, with its power, else empty
    base: base of a numeral if written, else 0
    """

    body: str
    unit: str = ""
    base: int = 0

    @property
    def number(self) -> Number | None:
        return number(self.body)


def words_of(gold: str) -> frozenset[str]:
    """Return the words in a gold answer that may be its unit although no list has them."""
    words = {word.lower() for tail in re.findall(r"\\text\{([^{}\d]*)\}", gold) for word in WORD.findall(tail)}
    words |= {word.lower() for word in WORD.findall(match[2])} if (match := WORDS_AFTER.fullmatch(gold)) else set()
    return frozenset(word for word in words if len(word) > 1 or word in KNOWN) - NO_UNIT


def quantity(text: str, also: frozenset[str] = frozenset()) -> Quantity:
    """Separate a scalar answer from its unit. A tail with a word in neither a list nor `also` is not a unit."""
    text = without_thousands(text.strip())
    if match := CURRENCY.match(text):
        rest = quantity(text[match.end() :], also)
        return Quantity(match[1] + rest.body, KNOWN[match[2].lower()])
    if match := PERCENT.fullmatch(text):
        return Quantity(match[1], "percent")
    if match := DEGREE.fullmatch(text):
        return Quantity(match[1], DEGREES[(match[2] or "")[:1].lower()])
    if (match := MODULUS.fullmatch(text)) and number(match[1]):
        return Quantity(match[1], f"mod {match[2]}")
    if match := BASE.fullmatch(text):
        return Quantity(match[1], base=int(match[2] or match[3]))
    for pattern in (TAIL, WORDS_AFTER, GLUED):
        if match := pattern.fullmatch(text):
            if len(match[2]) == 1 and not _is_unit_letter(match[2], match[1], also if pattern is GLUED else KNOWN):
                return Quantity(text)
            unit = _unit(match[2], match[3] or "", also)
            return Quantity(text) if unit is None else Quantity(match[1].strip(), unit)
    return Quantity(text)


def compound(text: str) -> tuple[tuple[Fraction, str], ...]:
    """Read "2 hours and 30 min" as 2 h and 30 min; empty for other texts."""
    parts, end = [], 0
    while match := MEASURE.match(text, end):
        parts.append((Fraction(match[1]), KNOWN.get(match[2]) or KNOWN.get(match[2].lower(), "")))
        end = match.end()
    units = [unit for _, unit in parts]
    together = any(units == [unit for unit in group.split() if unit in units] for group in COMPOUND)
    return tuple(parts) if end == len(text) and len(parts) > 1 and together else ()


def same(gold: Quantity, answer: Quantity) -> bool:
    """Whether two numbers and their units agree. A percent sign on one side only may be a unit or a hundredth."""
    expected, given = gold.number, answer.number
    if expected is None or given is None or not compatible(gold, answer):
        return False
    if equal(expected, given):
        return True
    if (gold.unit == "percent") == (answer.unit == "percent"):
        return False
    if gold.unit == "percent":
        return equal(Number(expected.value / 100, ratio=True), given)
    return equal(expected, Number(given.value / 100))


def compatible(gold: Quantity, answer: Quantity) -> bool:
    """Whether units and bases allow two quantities to be the same. An answer may omit the gold answer's base."""
    different_units = len(units := {gold.unit, answer.unit} - {""}) > 1
    scales = units in ({"degree", "celsius"}, {"degree", "fahrenheit"})
    return (scales or not different_units) and answer.base in (0, gold.base)


def _is_unit_letter(letter: str, body: str, units: Collection[str]) -> bool:
    """Whether a letter after a number is a unit: in 2\\pi r it is not."""
    return letter in KNOWN and (letter in units or letter.lower() in units) and number(body) is not None


def _unit(tail: str, power: str, also: frozenset[str]) -> str | None:
    """Return the unit of measurement in a tail; empty if things are counted, None if it is not a unit."""
    if not (tail := TOGETHER.sub(" ", tail).strip(" ()")):
        return ""
    sides = re.split(r"\s*/\s*|\s+per\s+", tail)
    units = [_measure(WORD.findall(side), also) for side in sides]
    if None in units:
        return None
    exponent = "".join(filter(str.isdigit, power))
    units[-1] = f"{units[-1]}{exponent}" if units[-1] else ""
    return "/".join(filter(None, units))


def _measure(words: list[str], also: frozenset[str]) -> str | None:
    """Read "square feet" as ft2, "tall students" as empty, and "plus one" as None. Any word may be an adjective."""
    exponent, unit, counted, adjective = "", "", False, False
    for word in words:
        bare = word.rstrip(".").lower()
        if bare in AREAS:
            exponent = AREAS[bare]
        elif known := KNOWN.get(word) or (len(bare) > 1 and (KNOWN.get(word.lower()) or KNOWN.get(bare))):
            unit, counted = known if unit in ("", "degree") else unit, True
        elif bare in COUNTED or bare in also or word.lower() in also:
            counted, adjective = True, False
        elif bare in NO_UNIT or len(bare) < 3:
            return None
        elif bare not in ASIDE:
            adjective = True
    if not counted or adjective:
        return None
    return unit + exponent if unit else ""
