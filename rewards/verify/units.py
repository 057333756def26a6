"""Reads the context of a number: currency, percent, degrees, units, bases, moduli."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from microbudget_rl.rewards.verify.numbers import THOUSANDS, Number, equal, number
from microbudget_rl.rewards.verify.text.words import CARDINALS, PARTS, SCALES, VOCABULARY, product

KNOWN = {
    form: short + unit
    for unit, spellings in VOCABULARY["units"].items()
    for short, long in [("", ""), *(VOCABULARY["prefixes"].items() if unit in VOCABULARY["prefixed"] else ())]
    for word in spellings.split()
    for name in [(short if len(word) <= 3 else long) + word]
    for form in ([name] if len(name) == 1 else [name, f"{name}s"])
}
"""Units of measurement, by each of their spellings, with and without a prefix."""

PLURALS: dict[str, str] = VOCABULARY["plurals"]
ASIDE, PREPOSITIONS = (frozenset(VOCABULARY[name].split()) for name in ("aside", "prepositions"))
CHANGING = {word for name in ("denials", "changes", "continued") for word in VOCABULARY[name].split()}
CHANGING |= {*CARDINALS, *SCALES, *PARTS} | {f"{word}s" for word in (*VOCABULARY["changes"].split(), *SCALES)}
"""Words that are neither a unit nor a thing: with one of them, a number is another, denied, or part of a sentence."""

NUMERIC = re.compile(r".*(?:illi(?:on|ard)|illionth|teenth|tieth)s?")
NOUN = re.compile(r"(?=[A-Za-z]*[AEIOUaeiouy])[A-Za-z][a-z]{2,}(?:['-][A-Za-z]+)*")

TOGETHER = re.compile(
    r"\b(?:in (?:all|total)|all together|more|left(?: over)?|remaining|overall|o'clock|(?:an?|each|every) "
    r"(?:day|night|week|month|year|person)|each|apiece)\b"
)
"""Words that belong to an amount: 5 more, 5 in all, 5 a day."""

RESCALED = re.compile("|".join(VOCABULARY["rescaled"]))

CURRENCY = re.compile(
    r"([+-]?)\s*(?:\\text\{\s*)?(?:US\s?)?\\?([$€£¥₹]|USD|EUR|GBP|CNY|RMB|INR|Rs|yen|euro)(?:(?<=s)\.)?\s*\}?\s*(?=[-+.\d\\])"
)
MONEY = re.compile(r"(.*?[\d})])\s*(?:\\text\{\s*)?\\?([$€£¥₹¢])([A-Za-z/ ]*)\}?")
BASE = re.compile(r"\(?([+-]?[0-9A-F]*\d[0-9A-F]*)\)?_(?:(\d)|\{\(?(\d{1,2})\)?\})")
DEGREE = re.compile(r"(.*\S)\s*\^\\circ\s*(?:\\text\{)?\s*(C|F|[Cc]elsius|[Ff]ahrenheit)?\s*\}?")
CURRENCIES = {KNOWN[sign] for sign in "$€£¥₹¢"}
"""Units of prices, which may leave out what they are for: $60, and $60 per month."""

DEGREES = {"": "degree", "c": "celsius", "f": "fahrenheit"}
PERCENT = re.compile(r"(.*\S)\s*(?:%|\\text\{\s*(?:%|percent|per cent)\s*\}|(?<=[\d} ])\s*per ?cent)")
POWER = r"(\^\s*\{?\s*-?[1-3]\s*\}?)?"
TAIL = re.compile(rf"(.*\S)\s*\\text\{{([^{{}}\d]*)\}}\s*{POWER}")
WORDS_AFTER = re.compile(
    r"(.*[\d}%)])(?:\s+(?![A-Za-z](?: [A-Za-z])+(?![A-Za-z]))|(?=/\s?[A-Za-z]{2}))"
    rf"([/(]?\s?[A-Za-z](?:[A-Za-z'./ -]*[A-Za-z.])?)\)?\s*{POWER}"
)
GLUED = re.compile(rf"(.*\d)(mm|cm|km|kg|mg|ml|ft|hr|[kMGT][BWVJN]|Hz|[A-Za-z]|[A-Za-z]{{3,}})\s*{POWER}")
"""A unit or thing without a space. A single letter counts only if it is the gold answer's unit."""

MODULUS = re.compile(r"(.*\S)\s*\\mod\{(\w+)\}")
MEASURE = re.compile(
    r"(\d+(?:\.\d+)?)\s?(?:\\text\{\s?)?([A-Za-z]+)\.?,?(?:\s?and)?\s?\}?,?\s?(?:\\text\{\s?and\s?\}|and)?\s?"
)
COMPOUND = ("year month week day h min s", "yd ft in", "lb oz", "dollar cent")
"""Units that form one amount together, larger ones first."""

WORD = re.compile(r"[A-Za-z]+(?:[.'-][A-Za-z]+)*[.']?|\S")
PER, ARTICLES = {"/", "per"}, {"a", "an"}
POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}
ENDING = re.compile(r"e?s$|e$")


@dataclass(frozen=True)
class Quantity:
    """A scalar answer and its unit.

    body: the answer without its unit
    unit: a unit of measurement in one spelling, with its power, else empty
    base: base of a numeral if written, else 0
    things: nouns in one spelling, the one that is counted first: slice, pizza
    """

    body: str
    unit: str = ""
    base: int = 0
    things: tuple[str, ...] = ()

    @property
    def number(self) -> Number | None:
        return number(self.body)


def quantity(text: str, asked: str = "") -> Quantity:
    """Separate a scalar answer from its unit and the things it counts. Other words stay in the body.

    asked: the gold answer's unit; of single letters without a space before them, only this one is a unit
    """
    text = THOUSANDS.sub(lambda match: match[1].replace(",", ""), text.strip())
    if asked == "pound sterling":
        text = text.replace("pound", "gbp")
    if RESCALED.search(text):
        return Quantity(text)
    if match := CURRENCY.match(text):
        rest, unit = quantity(text[match.end() :]), KNOWN[match[2].lower()]
        period = rest.unit.removeprefix(unit)
        return replace(rest, body=match[1] + rest.body, unit=unit + period) if period[:1] in "/" else Quantity(text)
    if match := PERCENT.fullmatch(text):
        return Quantity(match[1], "percent")
    if match := DEGREE.fullmatch(text):
        return Quantity(match[1], DEGREES[(match[2] or "")[:1].lower()])
    if (match := MONEY.fullmatch(text)) and (tail := _tail(match[2] + match[3], "", prose=True)):
        return replace(tail, body=match[1])
    if (match := MODULUS.fullmatch(text)) and (residue := number(match[1])):
        reduced = not match[2].isdigit() or residue.value < int(match[2])  # 7 mod 3 is an operation
        return Quantity(match[1], f"mod {match[2]}") if reduced else Quantity(text)
    if match := BASE.fullmatch(text):
        return Quantity(match[1], base=int(match[2] or match[3]))
    for pattern in (TAIL, WORDS_AFTER, GLUED):
        if match := pattern.fullmatch(text):
            body, words, power = match[1].strip(), match[2], match[3] or ""
            if len(words) == 1 and (
                words not in KNOWN or number(body) is None or (pattern is GLUED and KNOWN[words] != asked)
            ):
                return Quantity(text)
            tail = _tail(words, power, prose=pattern is not TAIL)
            if tail is None:
                return Quantity(text)
            inner = quantity(body)
            unit = " ".join(filter(None, (inner.unit, tail.unit)))
            return replace(inner, unit=unit, things=(*tail.things, *inner.things))
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
    if equal(expected, given) and not (answer.unit == "percent" != gold.unit and abs(expected.value) <= 1):
        return True
    if (gold.unit == "percent") == (answer.unit == "percent"):
        return False
    if gold.unit == "percent":
        return equal(Number(expected.value / 100, ratio=True), given)
    return equal(expected, Number(given.value / 100))


def compatible(gold: Quantity, answer: Quantity) -> bool:
    """Whether units, things and bases allow two quantities to be the same. An answer may omit the gold answer's."""
    if answer.base not in (0, gold.base or 10) or not _same_things(gold.things, answer.things):
        return False
    if gold.unit and answer.unit:
        short, long = sorted((gold.unit, answer.unit), key=len)
        priced = short in CURRENCIES and long.startswith(f"{short}/")
        return priced or short == long or {short, long} in ({"degree", "celsius"}, {"degree", "fahrenheit"})
    return bool(gold.unit) == bool(answer.unit) or not (gold if answer.unit else answer).things


def _same_things(gold: tuple[str, ...], answer: tuple[str, ...]) -> bool:
    """Whether two nouns are the same and only one has further words: slices, and slices of pizza."""
    few, many = sorted((set(gold), set(answer)), key=len)
    return not few or (gold[0] == answer[0] and few <= many)


def _tail(tail: str, power: str, prose: bool) -> Quantity | None:
    """Read "square feet" as ft2, "red slices of pizza" as slice, red and pizza, and "plus one" as None.

    prose: whether the words stand outside \\text
    """
    units, nouns, others = [""], list[str](), list[str]()
    exponent, after_preposition = power.strip("^{ -1}"), False
    words = WORD.findall(TOGETHER.sub(" ", tail).strip(" ()"))
    if "-" in power:
        words.insert(-1, "/")
    for place, word in enumerate(words, 1):
        bare, last = word.lower().rstrip(".'"), place == len(words)
        known = (
            not after_preposition
            and (last or bare != "in")
            and (KNOWN.get(word) or (len(bare) > 1 and KNOWN.get(bare)))
        )
        if bare in PER or (bare in ARTICLES and place > 1 and not after_preposition):
            units, after_preposition = [*units, ""], False
        elif bare in POWERS and (units[-1] if bare.endswith("ed") else not last):
            exponent = POWERS[bare]
        elif known:
            units[-1] = known if units[-1] in ("", "degree") else f"{units[-1]} {known}"
        elif bare in PREPOSITIONS and not last:
            after_preposition = True
        elif _is_noun(word.rstrip(".'"), prose):
            (others if after_preposition or len(units) > 1 else nouns).append(_singular(bare))
        elif bare not in ASIDE and not (bare == "times" and last):
            return None
    unit = "/".join(units).rstrip("/")
    return Quantity("", unit + exponent if units[-1] else unit, things=(*nouns[::-1], *others))


def _is_noun(word: str, prose: bool) -> bool:
    """Whether a word only names a thing. prose: whether it may be a product of letters, as in 7 xyz"""
    parts = {*re.split("['-]", word.lower())}
    changing = parts & CHANGING or any(map(NUMERIC.fullmatch, parts))
    return bool(NOUN.fullmatch(word)) and not (changing or parts & ASIDE or (prose and product(word)))


def _singular(noun: str) -> str:
    """Write singular and plural alike; the result need not be a word."""
    noun = re.sub(r"ies$|y$", "i", re.sub(r"ves$|fe?$", "f", PLURALS.get(noun, noun)))
    return ENDING.sub("", ENDING.sub("", noun))
