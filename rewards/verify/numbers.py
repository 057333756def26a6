"""Reads written-out numbers and compares them without algebra."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

LARGEST_EXPONENT = 400
"""Largest exponent of a power of ten that becomes an exact fraction."""

APPROXIMATION_DIGITS = 6
"""Significant digits with which a decimal may stand for a fraction that no decimal equals, as in math-verify."""

DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
PLAIN = re.compile(DECIMAL)
REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar)\s*\{(\d+)\}|\((\d+)\))")
FRACTION = re.compile(rf"(\d*)\s*\\frac\s*\{{\s*([+-]?\s*{DECIMAL})\s*\}}\s*\{{\s*([+-]?\s*{DECIMAL})\s*\}}")
BELOW = rf"(?:({DECIMAL})|\(\s*([+-]?\s*{DECIMAL})\s*\))"
SLASH = re.compile(rf"{BELOW}\s*(?:/|\\div)\s*{BELOW}")
MIXED_SLASH = re.compile(r"(\d+)\s+(\d+)\s*/\s*(\d+)")
MIXED_SUM = re.compile(r"(\d+)\s*([+-])\s*(?:\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d+)\s*/\s*(\d+))")
"""A mixed number written as a sum, 2 + 1/2 or -2 - 1/2."""

TENS = rf"(?:({DECIMAL})\s*(?:\\times|\\cdot|\*|x)\s*)?10\s*\^\s*"
POWER = re.compile(rf"(?:{TENS}|({DECIMAL})[eE])(?:\{{\s*([+-]?\d+)\s*\}}|([+-]?\d+))")
ENCLOSED = re.compile(r"\(([^()]*+(?:\([^()]*+\))?[^()]*+)\)")
"""One number in parentheses, (5), which may hold another pair, (2/(-3))."""

THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:,\d{3})+)(?![\d,])")
"""A number with thousands separators. A list has spaces, or groups of other lengths."""


@dataclass(frozen=True)
class Number:
    """A written-out number.

    ratio: whether it is a fraction or mixed number
    digits: significant digits of a decimal, else 0
    places: digits behind the point
    """

    value: Fraction
    ratio: bool = False
    digits: int = 0
    places: int = 0


def number(text: str) -> Number | None:
    """Read a written-out integer, decimal, fraction, mixed number or power of ten; None for anything else."""
    sign = text[:1] if text[:1] in ("+", "-") else ""
    magnitude = _unsigned(text[len(sign) :].lstrip(), sign)
    return replace(magnitude, value=-magnitude.value) if magnitude and sign == "-" else magnitude


def _unsigned(text: str, sign: str) -> Number | None:
    """Read a number without the sign before it, which a mixed number repeats: -2 - 1/2."""
    if PLAIN.fullmatch(text):
        digits, places = _precision(text)
        return Number(Fraction(text), digits=digits, places=places)
    if match := FRACTION.fullmatch(text) or MIXED_SLASH.fullmatch(text):
        return _ratio(*match.groups())
    if match := SLASH.fullmatch(text):
        return _ratio("", match[1] or match[2], match[3] or match[4])
    if (match := MIXED_SUM.fullmatch(text)) and (sign or "+") == match[2]:
        return _ratio(match[1], match[3] or match[5], match[4] or match[6])
    if match := ENCLOSED.fullmatch(text):
        return number(match[1])
    if match := POWER.fullmatch(text):
        factor, exponent = match[1] or match[2] or "1", int(match[3] or match[4])
        if abs(exponent) > LARGEST_EXPONENT:
            return None
        digits, places = _precision(factor)
        return Number(Fraction(factor) * Fraction(10) ** exponent, digits=digits, places=places - exponent)
    if match := REPEATING.fullmatch(text):
        once, period = match[2], match[3] or match[4]
        value = Fraction(int((match[1] + once) or "0"), 10 ** len(once))
        return Number(value + Fraction(int(period), 10 ** len(once) * (10 ** len(period) - 1)), ratio=True)
    return None


def equal(gold: Number, answer: Number) -> bool:
    """Whether two numbers are equal. A decimal of enough digits may stand for a fraction that no decimal equals."""
    if gold.value == answer.value:
        return True
    exact, rounded = (gold, answer) if gold.ratio else (answer, gold)
    return bool(
        exact.ratio
        and rounded.digits >= APPROXIMATION_DIGITS
        and pow(10, exact.value.denominator.bit_length(), exact.value.denominator)  # a decimal would never end
        and round(exact.value, rounded.places) == rounded.value
    )


def rounds(exact: Fraction, decimal: Number) -> bool:
    """Whether a decimal is the exact value rounded or truncated to its places."""
    unit, excess = Fraction(1, 10**decimal.places), exact - decimal.value
    return abs(excess) <= unit / 2 or 0 <= (excess if decimal.value > 0 else -excess) < unit


def _ratio(whole: str, numerator: str, denominator: str) -> Number | None:
    above, below = (Fraction(part.replace(" ", "")) for part in (numerator, denominator))
    if not below or (whole and not (numerator.isdigit() and denominator.isdigit() and above < below)):
        return None  # 2\frac{-1}{2} and 2\frac{3}{2} are no mixed numbers
    return Number(int(whole or 0) + above / below, ratio=True)


def _precision(decimal: str) -> tuple[int, int]:
    """Return the significant digits of a decimal, and those behind its point."""
    whole, _, part = decimal.partition(".")
    return len((whole + part).lstrip("0")), len(part)
