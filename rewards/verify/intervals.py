r"""Reads inequalities and set-builders as intervals and unions of them: x < -2 or x > 3, \{x : x \neq 0\}, |x| < 1."""

import re
from itertools import pairwise

from rewards.verify.names import LETTER

INFINITY = r"\infty"
VARIABLE = rf"(?:{LETTER}(?:\s?\([a-z]\))?|\\text\{{\s*\w+\s*\}}|[A-Z]{{2,3}})"
BOUND = re.compile(rf"(?:([^<>=]+?)\s*(<|>|\\leq|\\geq)\s*)?({VARIABLE})\s*(?:(<|>|\\leq|\\geq)\s*([^<>=]+))?")
UNEQUAL = re.compile(rf"({VARIABLE})\s*\\neq\s*([^<>=,;]+)")
POINT = re.compile(rf"({VARIABLE})\s*=\s*([^<>=,;]+)")
MODULUS = re.compile(rf"\|\s*({VARIABLE})\s*\|\s*(<|>|\\leq|\\geq)\s*(\d[^<>=,;|]*)")
BUILDER = re.compile(
    rf"\\\{{\s*({VARIABLE})\s*(?:\\in\s*(?:\\mathbb\s*\{{?R\}}?|\\R|R)\s*)?(?:\\mid(?![a-z])|\||:)\s*(.+?)\s*\\\}}",
    re.DOTALL,
)
OR = re.compile(r"\s*(?:\\text\{\s*,?\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![a-z])|\\vee(?![a-z]))\s*")
RELATION = re.compile(r"<|>|\\leq|\\geq|\\neq")

Interval = tuple[str, str, str]
"""Brackets, low and high end; braces around a point."""


def solution(text: str) -> tuple[str, list[Interval]] | None:
    """Return the variable of an inequality against constants and the intervals it lies in; None for other texts."""
    builder = BUILDER.fullmatch(text)
    condition = builder[2] if builder else text
    if not RELATION.search(condition):
        return None
    parts = [_one(part) for part in OR.split(condition)]
    known = [part for part in parts if part]
    name = _name(builder[1]) if builder else known[0][0] if known else ""
    if len(known) < len(parts) or any(other != name for other, _ in known):
        return None
    return name, [interval for _, intervals in known for interval in intervals]


def _one(text: str) -> tuple[str, list[Interval]] | None:
    if match := UNEQUAL.fullmatch(text):
        name, value = _name(match[1]), match[2].strip()
        return None if _unknown(value) else (name, [("()", f"-{INFINITY}", value), ("()", value, INFINITY)])
    if match := MODULUS.fullmatch(text):
        name, sign, value = match.groups()
        if _unknown(value):
            return None
        if sign in ("<", r"\leq"):
            return _name(name), [("()" if sign == "<" else "[]", f"-{value}", value)]
        opens, closes = ("(", ")") if sign == ">" else ("[", "]")
        return _name(name), [(f"({closes}", f"-{INFINITY}", f"-{value}"), (f"{opens})", value, INFINITY)]
    if (match := POINT.fullmatch(text)) and not _unknown(match[2]):
        return _name(match[1]), [("{}", match[2].strip(), "")]
    return _bounds(text)


def _bounds(text: str) -> tuple[str, list[Interval]] | None:
    match = BOUND.fullmatch(text)
    if not match or not (match[2] or match[4]):
        return None
    left, first, variable, second, right = match.groups()
    if any(side and _unknown(side) for side in (left, right)):
        return None
    upward = [sign in ("<", r"\leq") for sign in (first, second) if sign]
    if any(one != other for one, other in pairwise(upward)):
        return None
    if not upward[0]:
        left, first, second, right = right, second, first, left
    low, high = left or f"-{INFINITY}", right or INFINITY
    opens = "[" if first in (r"\leq", r"\geq") else "("
    closes = "]" if second in (r"\leq", r"\geq") else ")"
    return _name(variable), [(opens + closes, low.strip(), high.strip())]


def _unknown(side: str) -> bool:
    """Whether a bound contains letters outside the names of commands: constants do not."""
    return bool(re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side)))


def _name(variable: str) -> str:
    return re.sub(r"\s", "", variable)
