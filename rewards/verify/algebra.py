"""Decides by math-verify whether two expressions are equal. It may run for ever, or take all of the memory."""

import logging
import re
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from microbudget_rl.rewards.verify.numbers import Number, number, rounds
from microbudget_rl.rewards.verify.text import depth

RELATIVE_ERROR = 1e-6
"""Relative error within which two numbers must agree; math-verify only rounds to six decimals."""

LARGEST_ROUNDED = 1e15
"""Largest value that is compared with a rounded one: a float has no more digits."""

OVERSIZED = re.compile(
    r"\^\s*\{?\s*\(?-?\d{5,}"  # 2^{100000}
    r"|\)\s*\}*\s*\^\s*\{?\s*\(?-?\d{4,}"  # (x+1)^{1000}
    r"|\^[^!]{1,20}\)\s*!"  # (10^{9})!
    r"|\d\s*\)?\s*(\^|\*\*)\s*[{(]*\s*\d+\s*\)?\s*(\^|\*\*)\s*[{(]*\s*\d"  # 9^{9^{9}}
    r"|\*\*\s*\(?\s*\d{5,}"
    r"|\d{4,}\s*\)*\s*\}*\s*!"
    r"|!\s*\)*\s*!"
    r"|\\d?t?binom\s*\{\s*\d{5,}"
)
"""Numbers whose digits would fill the memory. Algebra refuses expressions that contain one."""

IMAGINARY = re.compile(r"(?<=\d)i(?![A-Za-z])")
"""The imaginary unit right after a digit, which math-verify would read as a variable."""

INDEXED = re.compile(r"(?<![A-Za-z\\])[IE](?=_)")
STAND_INS = {"I": r"\Upsilon ", "E": r"\Xi "}
"""Letters with an index that math-verify would read as constants."""

PRIMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z])('+)")
INVERTED = re.compile(r"(?<![A-Za-z\\])([fghFGH])\s*\^\s*\{\s*-\s*1\s*\}(?=\s*\()")
DECIMAL_POWER = re.compile(r"\^\s*\{\s*(-?\d*\.\d+)\s*\}")
"""Notation that math-verify loses or rounds: derivatives, inverse functions, powers such as 2^{0.5}."""

DEEPEST = 60
"""Largest number of nested brackets; the parser is recursive."""

POINTS = (13, -19, 41, -53, 73, -89, 137, -151, 311, -401, 577, -701)
"""Numerators, over 97, of the points where expressions are compared: on both sides of 0 and 1."""

DIGITS, SAME = 30, 1e-20
"""Digits of the evaluation, and the relative difference below which values are the same."""


@cache
def _math_verify() -> tuple[Any, tuple[Any, ...]]:
    """Import math-verify, which takes more than a second, and configure how it reads an answer.

    Its removal of units stays off: it would remove c in a + b + c and t in \\cos t.
    """
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its timeout is off
    normalisation = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    extraction = math_verify.LatexExtractionConfig(normalization_config=normalisation, boxed_match_priority=0)
    return math_verify, (extraction,)


class Unparsable(Exception):
    """The answer is not mathematics."""


def parse(answer: str) -> list[Any]:
    """Read a plain answer as sympy expressions; empty if it has no reading."""
    answer = INDEXED.sub(lambda letter: STAND_INS[letter[0]], IMAGINARY.sub(" i", answer))
    answer = PRIMED.sub(lambda match: rf"{match[1]}_{{d{len(match[2])}}}", INVERTED.sub(r"\1_{inverse}", answer))
    answer = DECIMAL_POWER.sub(lambda match: f"^{{{Fraction(match[1])}}}", answer)
    math_verify, extraction = _math_verify()
    readings = math_verify.parse(rf"\boxed{{{answer}}}", extraction, fallback_mode="no_fallback", parsing_timeout=None)
    return [reading for reading in readings if not isinstance(reading, str)]


parse_gold = lru_cache(maxsize=4096)(parse)


def equivalent(gold: str, answer: str, rounded: bool = False) -> bool:
    """Whether two plain expressions are equal. Raises Unparsable if one of them has no reading, or is too large.

    rounded: whether the answer is a decimal that may be the gold value rounded or truncated
    """
    if any(OVERSIZED.search(text) or depth(text) > DEEPEST for text in (gold, answer)):
        raise Unparsable
    expected, given = parse_gold(gold), parse(answer)
    if not expected or not given:
        raise Unparsable
    try:
        return _same_readings(expected, given, number(answer) if rounded else None)
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError) as error:  # sympy's
        raise Unparsable from error


def _same_readings(expected: list[Any], given: list[Any], decimal: Number | None) -> bool:
    """Whether readings are equal. decimal: the answer, if it may be the gold value rounded or truncated"""
    if decimal is not None:
        exact = expected[0].evalf()
        if not exact.is_Float or abs(exact) > LARGEST_ROUNDED:
            return False
        return rounds(Fraction(float(exact)), decimal)
    if all(map(_is_real, (expected[0], given[0]))) and not _near(expected[0], given[0]):
        return False  # math-verify would search for a power of 10 at which log_10 3 is 8,000,000
    if _equal_at_points(expected[0], given[0]):
        return True
    return bool(_math_verify()[0].verify(expected, given, timeout_seconds=None)) and _near(expected[0], given[0])


def _equal_at_points(gold: Any, answer: Any) -> bool:
    """Whether two expressions with letters have the same real values at POINTS; sympy may be slow to prove it."""
    from sympy import Expr, Rational

    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.is_number or answer.is_number:
        return False
    letters, agreed = sorted(gold.free_symbols | answer.free_symbols, key=str), 0
    for place, point in enumerate(POINTS):
        values = {letter: Rational(point + 29 * index * (-1) ** place, 97) for index, letter in enumerate(letters)}
        try:
            one, other = (expression.subs(values).evalf(DIGITS) for expression in (gold, answer))
        except (ArithmeticError, NotImplementedError, TypeError, ValueError):
            return False  # sympy cannot evaluate it, math-verify may
        if one.is_Float != other.is_Float or (one.is_Float and abs(one - other) > abs(one) * SAME):
            return False
        agreed += one.is_Float
    return agreed >= len(POINTS) // 4


def _is_real(value: Any) -> bool:
    """Whether a reading is a finite real number."""
    return bool(getattr(value, "is_number", False) and value.is_finite and value.is_comparable)


def _near(gold: Any, answer: Any) -> bool:
    """Whether numbers agree to six digits, and equations are no powers of each other: (y-x)^2 = 0 is not y = x."""
    from sympy import Eq, cancel

    if isinstance(gold, Eq) and isinstance(answer, Eq):
        left, right = (cancel(reading.lhs - reading.rhs).as_numer_denom()[0] for reading in (gold, answer))
        return bool(cancel(left / right).is_number)
    if not all(getattr(value, "is_number", False) for value in (gold, answer)):
        return True
    one, other = (value.doit().evalf() for value in (gold, answer))
    return bool(abs((gold - answer).evalf()) <= RELATIVE_ERROR * max(abs(one), abs(other)))
