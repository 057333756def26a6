"""Reads what stands around a number: currency, percent, degrees, units, bases."""

import re
from dataclasses import dataclass

from rewards.verify.numbers import Number, equal, number, without_thousands

HEDGES = frozenset(
    [
        "or",
        "and",
        "not",
        "either",
        "neither",
        "but",
        "maybe",
        "perhaps",
        "if",
        "except",
        "than",
        "is",
        "approximately",
        "about",
    ]
)
"""Words that make a tail more than a unit."""

NAMES = frozenset(
    [
        "pi",
        "inf",
        "infty",
        "infinity",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "sqrt",
        "lim",
        "max",
        "min",
        "mod",
        "gcd",
        "lcm",
        "frac",
    ]
)
"""Words that are mathematics."""

CURRENCY = re.compile(r"([+-]?)\s*(?:\\\$|\\text\{\s*\\\$\s*\}|[€£])\s*")
CURRENCIES = {"€": "euro", "£": "pound sterling"}
BASE = re.compile(r"([+-]?[0-9A-F]*\d[0-9A-F]*)_(\d{1,2})")
DEGREE = re.compile(r"(.*\S)\s*\^\\circ(\s*[CF])?")
PERCENT = re.compile(r"(.*\S)\s*(?:%|\\text\{\s*(?:%|percent|per cent)\s*\}|(?<=[\d} ])\s*per ?cent)")
TAIL = re.compile(r"(.*\S)\s*\\text\{([^{}\d]*)\}\s*(\^\s*\{?\s*[23]\s*\}?)?")
WORDS_AFTER = re.compile(r"(.*[\d}])\s+([A-Za-z][A-Za-z./ -]*[A-Za-z.])\s*(\^\s*\{?\s*[23]\s*\}?)?")
GLUED = re.compile(r"(.*\d)((?:mm|cm|km|kg|mg|ml|ft|min|hrs?|cents?|dollars?|degrees?)\b)\s*(\^\s*\{?\s*[23]\s*\}?)?")

SPELLINGS = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inche",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "g": "g gram",
    "kg": "kg kilogram",
    "lb": "lb pound",
    "s": "s sec second",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "yr year",
    "dollar": "dollar usd",
    "cent": "cent",
    "degree": "degree deg",
    "radian": "radian rad",
    "percent": "percent",
    "liter": "l liter litre",
    "ml": "ml milliliter millilitre",
    "a.m.": "am a.m a.m.",
    "p.m.": "pm p.m p.m.",
    "mph": "mph",
    "euro": "euro",
}
KNOWN = {spelling: unit for unit, spellings in SPELLINGS.items() for spelling in spellings.split()}


@dataclass(frozen=True)
class Quantity:
    """A scalar answer and its unit.

    body: the answer without its unit
    unit: a known unit in one spelling, with its power, else empty
    base: of a numeral, if it is written
    """

    body: str
    unit: str = ""
    base: int = 0

    @property
    def number(self) -> Number | None:
        return number(self.body)


def quantity(text: str) -> Quantity:
    """Take a scalar answer and its unit apart. Only one unit is taken off; text with a hedging word is none."""
    text = without_thousands(text.strip())
    if match := CURRENCY.match(text):
        symbol = match[0].strip()[-1]
        return Quantity(match[1] + text[match.end() :].strip(), CURRENCIES.get(symbol, "dollar"))
    if match := PERCENT.fullmatch(text):
        return Quantity(match[1], "percent")
    if match := DEGREE.fullmatch(text):
        return Quantity(match[1], "degree")
    if match := BASE.fullmatch(text):
        return Quantity(match[1], base=int(match[2]))
    for pattern in (TAIL, WORDS_AFTER, GLUED):
        if match := pattern.fullmatch(text):
            words = re.findall(r"[a-z]+", match[2].lower())
            if not HEDGES.isdisjoint(words):
                break
            if pattern is not WORDS_AFTER or (
                NAMES.isdisjoint(words) and (max(map(len, words)) > 1 or "." in match[2])
            ):
                return Quantity(match[1].strip(), _unit(match[2], match[3] or ""))
    return Quantity(text)


def same(gold: Quantity, answer: Quantity) -> bool:
    """Whether two quantities that are both numbers agree. A percent sign on one side only may be a unit or a
    hundredth; units are not converted, and known ones that differ do not agree.
    """
    expected, given = gold.number, answer.number
    if expected is None or given is None or _conflict(gold, answer):
        return False
    if equal(expected, given):
        return True
    if (gold.unit == "percent") == (answer.unit == "percent"):
        return False
    if gold.unit == "percent":
        return equal(Number(expected.value / 100, ratio=True), given)
    return equal(expected, Number(given.value / 100))


def _conflict(gold: Quantity, answer: Quantity) -> bool:
    different = bool(gold.unit and answer.unit and gold.unit != answer.unit)
    return different or bool(gold.base and answer.base and gold.base != answer.base)


def compatible(gold: Quantity, answer: Quantity) -> bool:
    """Whether units and bases allow two quantities to be the same."""
    return not _conflict(gold, answer)


def _unit(words: str, power: str) -> str:
    """Find the known unit among a tail's words, with its power; empty if there is none."""
    found = words.lower().strip()
    exponent = "".join(c for c in power if c.isdigit())
    for word, its in (("square", "2"), ("sq.", "2"), ("sq", "2"), ("cubic", "3"), ("cu", "3")):
        if found.startswith(word + " "):
            found, exponent = found.removeprefix(word).strip(), its
    unit = KNOWN.get(found) or KNOWN.get(found.rstrip("s").rstrip(".")) or ""
    return unit + exponent if unit else ""
