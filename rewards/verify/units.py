"""Reads what stands around a number: currency, percent, degrees, units, bases."""

import re
from dataclasses import dataclass

from rewards.verify.numbers import Number, equal, number, without_thousands
from rewards.verify.vocabulary import ASIDE, COUNTED, KNOWN, NO_UNIT

CURRENCY = re.compile(r"([+-]?)\s*(?:\\\$|\\text\{\s*\\\$\s*\}|[€£])\s*")
CURRENCIES = {"€": "euro", "£": "pound sterling"}
BASE = re.compile(r"([+-]?[0-9A-F]*\d[0-9A-F]*)_(?:(\d)|\{(\d{1,2})\})")
DEGREE = re.compile(r"(.*\S)\s*\^\\circ(\s*[CF])?")
PERCENT = re.compile(r"(.*\S)\s*(?:%|\\text\{\s*(?:%|percent|per cent)\s*\}|(?<=[\d} ])\s*per ?cent)")
POWER = r"(\^\s*\{?\s*[23]\s*\}?)?"
TAIL = re.compile(rf"(.*\S)\s*\\text\{{([^{{}}\d]*)\}}\s*{POWER}")
WORDS_AFTER = re.compile(rf"(.*[\d}}])\s+([A-Za-z][A-Za-z./ -]*[A-Za-z.])\s*{POWER}")
GLUED = re.compile(rf"(.*\d)((?:mm|cm|km|kg|mg|ml|ft|min|hrs?|cents?|dollars?|degrees?)\b)\s*{POWER}")

WORD = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+)*\.?|\S")
AREAS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}


@dataclass(frozen=True)
class Quantity:
    """A scalar answer and its unit.

    body: the answer without its unit
    unit: a unit of measurement in one spelling, with its power, else empty
    base: of a numeral, if it is written
    """

    body: str
    unit: str = ""
    base: int = 0

    @property
    def number(self) -> Number | None:
        return number(self.body)


def words_of(gold: str) -> frozenset[str]:
    """Return the words in a gold answer that may be its unit, though no list has them."""
    words = {word.lower() for tail in re.findall(r"\\text\{([^{}\d]*)\}", gold) for word in WORD.findall(tail)}
    words |= {word.lower() for word in WORD.findall(match[2])} if (match := WORDS_AFTER.fullmatch(gold)) else set()
    return frozenset(word for word in words if len(word) > 1) - NO_UNIT


def quantity(text: str, also: frozenset[str] = frozenset()) -> Quantity:
    """Take a scalar answer and its unit apart. A tail with a word that is in no list, nor in `also`, is no unit."""
    text = without_thousands(text.strip())
    if match := CURRENCY.match(text):
        symbol = match[0].strip()[-1]
        return Quantity(match[1] + text[match.end() :].strip(), CURRENCIES.get(symbol, "dollar"))
    if match := PERCENT.fullmatch(text):
        return Quantity(match[1], "percent")
    if match := DEGREE.fullmatch(text):
        return Quantity(match[1], "degree")
    if match := BASE.fullmatch(text):
        return Quantity(match[1], base=int(match[2] or match[3]))
    for pattern in (TAIL, WORDS_AFTER, GLUED):
        if match := pattern.fullmatch(text):
            unit = _unit(match[2], match[3] or "", also)
            return Quantity(text) if unit is None else Quantity(match[1].strip(), unit)
    return Quantity(text)


def same(gold: Quantity, answer: Quantity) -> bool:
    """Whether two quantities that are both numbers agree. A percent sign on one side only may be a unit or a
    hundredth; units are not converted, and known ones that differ do not agree.
    """
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
    """Whether units and bases allow two quantities to be the same. Only the gold answer's base may be left out."""
    different_units = bool(gold.unit and answer.unit and gold.unit != answer.unit)
    return not different_units and answer.base in (0, gold.base)


def _unit(tail: str, power: str, also: frozenset[str]) -> str | None:
    """Return the unit of measurement among a tail's words; empty if things are counted, None if it is no unit."""
    sides = re.split(r"\s*/\s*|\s+per\s+", tail.strip().strip("()"))
    units = [_measure(WORD.findall(side), also) for side in sides]
    if None in units:
        return None
    exponent = "".join(filter(str.isdigit, power))
    units[-1] = f"{units[-1]}{exponent}" if units[-1] else ""
    return "/".join(filter(None, units))


def _measure(words: list[str], also: frozenset[str]) -> str | None:
    """Read "square feet" as ft2, "different students" as empty, and "plus one" as None."""
    exponent, unit, counted = "", "", False
    for word in words:
        bare = word.rstrip(".").lower()
        if bare in AREAS:
            exponent = AREAS[bare]
        elif known := KNOWN.get(word) or (len(bare) > 1 and (KNOWN.get(word.lower()) or KNOWN.get(bare))):
            unit, counted = unit or known, True
        elif bare in COUNTED or bare in also or word.lower() in also:
            counted = True
        elif bare not in ASIDE:
            return None
    if not counted:
        return None
    return unit + exponent if unit else ""
