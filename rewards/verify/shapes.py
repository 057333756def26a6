r"""Takes an answer apart into its kind and its elements.

Inequalities and set-builders are intervals and unions of them: x < -2 or x > 3, \{x : x \neq 0\}, |x| < 1.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from microbudget_rl.rewards.verify.names import CONJUNCTION, LETTER, MEMBER, split_names, tight, variables
from microbudget_rl.rewards.verify.numbers import number
from microbudget_rl.rewards.verify.text import CLOSING, OPENING, partner, split, unwrapped
from microbudget_rl.rewards.verify.units import compound

ENVIRONMENT = re.compile(r"(?s)\\begin\s*\{((?:small|[pbvB])?matrix|array)\}(?:\s*\{[lcr| ]*\})?(.*)\\end\s*\{\1\}")
WRAPPED = re.compile(r"(?:\(|\[)\s*(\\begin.*\\end\s*\{\w+\})\s*(?:\)|\])", re.DOTALL)
ANGLES = re.compile(r"\\langle(?![a-z])((?:(?!\\[lr]angle).)+)\\rangle")
ROW = re.compile(r"\[([^\[\]]+)\]")
ROWS = re.compile(rf"\[\s*{ROW.pattern}(?:\s*,\s*{ROW.pattern})+\s*\]")
OTHERS = rf"\s*=[^,;]*(?:,\s*(?!\1\s*=){LETTER}\s*=[^,;]*)+"
AGAIN = re.compile(rf"\s*({LETTER}){OTHERS}(?:;\s*\1{OTHERS})+")
"""Groups of named values that begin with the same name: x=1, y=2 and x=3, y=4."""

THOUSANDS_ONLY = re.compile(r"[^,;]*?(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])[^,;]*")
"""One number with thousands separators, and text around it."""

INFINITY = r"\infty"
VARIABLE = rf"(?:{LETTER}(?:\s?\([a-z]\))?|\\text\{{\s*\w+\s*\}}|[A-Z]{{2,3}})"
BOUND = re.compile(rf"(?:([^<>=]+?)\s*(<|>|\\leq|\\geq)\s*)?({VARIABLE})\s*(?:(<|>|\\leq|\\geq)\s*([^<>=]+))?")
POINT = re.compile(rf"({VARIABLE})\s*=\s*([^<>=,;]+)")
MODULUS = rf"\|\s*({VARIABLE})\s*\|"
BOUNDS = [
    (re.compile(rf"^-\s*({VARIABLE})\s*(<|>|\\leq|\\geq)\s*([^<>=,;]+)$"), r"-(\3) \2 \1"),
    (
        re.compile(
            rf"^({VARIABLE})\s*\\neq\s*([^<>=,;]+?)\s*(?:,|(?:\\text\{{\s*)?and\s*\}}?)\s*(?:\1\s*\\neq)?([^<>=,;]+)$"
        ),
        r"\1 < \2 or \2 < \1 < \3 or \1 > \3",
    ),
    (re.compile(rf"^({VARIABLE})\s*\\neq\s*([^<>=,;]+)$"), r"\1 < \2 or \1 > \2"),
    (re.compile(rf"^{MODULUS}\s*(<|\\leq)\s*(\d[^<>=,;|]*)$"), r"-\3 \2 \1 \2 \3"),
    (re.compile(rf"^{MODULUS}\s*(>|\\geq)\s*(\d[^<>=,;|]*)$"), r"-\3 \2 \1 or \1 \2 \3"),
]
"""Inequalities that are written as bounds: -x < 1, x \\neq 1, |x| < 1, |x| > 1."""

BUILDER = re.compile(
    rf"\\\{{\s*({VARIABLE})\s*(?:\\in\s*(?:\\mathbb\s*\{{?R\}}?|\\R|R)\s*)?(?:\\mid(?![a-z])|\||:)\s*(.+?)\s*\\\}}",
    re.DOTALL,
)
OR = re.compile(r"\s*(?:\\text\{\s*,?\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![a-z])|\\vee(?![a-z]))\s*")
INEQUALITY = re.compile(r"<|>|\\leq|\\geq|\\neq")

CLOCK = re.compile(
    r"(\d|[01]\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?\s*(?:\\text\{\s*)?(?:([ap])\.?\s?m\b\.?)?\s*\}?", re.IGNORECASE
)
"""A time of day. A ratio such as 3:10 looks the same, and is read as a time."""

SIGNED = re.compile(r"(\\frac\{)?\s*([^{}]*?|[^{}]*\{[^{}]*\}\{[^{}]*\})\s*\\pm\s*(.+?)(?(1)\}\{(\d+)\})")
"""Numbers around plus and minus, perhaps over a number."""

Ends = tuple[str, str, str]
"""Brackets, low and high end; braces around a point."""


class Kind(StrEnum):
    """The kind of an answer."""

    SCALAR = "scalar"  # one value or expression
    LIST = "list"  # several without brackets
    SET = "set"  # in braces
    SEQUENCE = "sequence"  # a tuple, point or interval, in parentheses or square brackets
    UNION = "union"  # of intervals or sets
    MATRIX = "matrix"  # rows of cells
    RATIO = "ratio"  # joined by colons
    TIME = "time"  # of a day, on a clock


@dataclass(frozen=True)
class Shape:
    """An answer taken apart.

    parts: texts of the elements, row by row for a matrix
    brackets: of a sequence, such as "(]", and of a determinant; "or" of a list of alternatives
    columns: of a matrix
    names: names before the value, x in x = 3, or between bounds
    interval: whether it can only be an interval, unlike two values in their order
    """

    kind: Kind
    parts: tuple[str, ...]
    brackets: str = ""
    columns: int = 0
    names: tuple[str, ...] = ()
    interval: bool = False


def shape(text: str) -> Shape:
    """Return the shape of a plain answer. Names before a value are separated; a chain of equal values is a scalar."""
    text = unwrapped(text)
    if inequality := solution(text):
        return _intervals(*inequality)
    names, value = split_names(text)
    if names:
        return replace(inner := shape(value), names=names, interval=inner.interval or MEMBER.search(text) is not None)
    if compound(text):
        return Shape(Kind.SCALAR, (text,))
    if len(union := split(text, r"\cup")) > 1 or (union := _either(text)):
        return Shape(Kind.UNION, union)
    if match := ENVIRONMENT.fullmatch(match[1] if (match := WRAPPED.fullmatch(text)) else text):
        lines = re.split(r"\\\\(?:\[\w+\])?|\\cr(?![a-z])", match[2])
        rows = [re.split(r"\s*&\s*", row.strip()) for row in lines if row.strip()]
    else:
        rows = [[*split(row, ",")] for row in ROW.findall(text[1:-1])] if ROWS.fullmatch(text) else []
    if len({len(row) for row in rows}) == 1:
        cells, bars = tuple(cell for row in rows for cell in row), "||" if "{vmatrix}" in text else ""
        return Shape(Kind.MATRIX, cells, bars, columns=len(rows[0]))
    if text.startswith(r"\{") and text.endswith(r"\}") and not re.search(r"\\mid|\||:|\\\}.*\\\{", text):
        return Shape(Kind.SET, tuple(_values(text[2:-2])))
    if match := ANGLES.fullmatch(text):
        return Shape(Kind.SEQUENCE, split(match[1], ","), "<>")
    if len(listed := _values(text)) > 1:
        return Shape(Kind.LIST, tuple(listed), "or" if OR.search(text) else "")
    if text[:1] and text[0] in OPENING and text[-1] in CLOSING and partner(text) == len(text) - 1:
        parts = split(text[1:-1], ",")
        if len(parts) > 1:
            return Shape(Kind.SEQUENCE, parts, text[0] + text[-1], interval=INFINITY in text)
    if ":" in text and (match := CLOCK.fullmatch(text)):
        hour, minute, second, half = match.groups(default="")
        return Shape(Kind.TIME, (str(int(hour)), minute, second or "00", half.lower()))
    if ":" in text and len(parts := split(text, ":")) > 1:
        return Shape(Kind.RATIO, parts)
    return Shape(Kind.SCALAR, (text,))


def _intervals(name: str, intervals: list[Ends]) -> Shape:
    if len(intervals) == 1:
        brackets, low, high = intervals[0]
        return Shape(Kind.SEQUENCE, (low, high), brackets, names=(name,), interval=True)
    parts = tuple(
        f"{brackets[0]}{low}, {high}{brackets[1]}" if high else rf"\{{{low}\}}" for brackets, low, high in intervals
    )
    return Shape(Kind.UNION, parts, names=(name,))


def _either(text: str) -> tuple[str, ...]:
    """Return the intervals of "x in (1, 2] or x in (3, 4)"; empty if they may be points."""
    alternatives = OR.split(text)
    parts = [shape(part) for part in alternatives] if len(alternatives) > 1 else []
    if len({part.names for part in parts}) > 1 or any(part.kind is not Kind.SEQUENCE for part in parts):
        return ()
    surely = [part for part in parts if part.brackets != "()" or part.names or INFINITY in "".join(part.parts)]
    return tuple(f"{part.brackets[0]}{', '.join(part.parts)}{part.brackets[1]}" for part in parts) if surely else ()


def _values(text: str) -> list[str]:
    """Split a list at commas, semicolons, "and" and "or"."""
    alternatives = CONJUNCTION.sub(" ; ", text)
    groups = [split(group, ",") for group in split(alternatives if AGAIN.fullmatch(alternatives) else text, ";")]
    if len(groups) > 1 and len(sizes := {len(group) for group in groups}) == 1 and sizes != {1}:
        return [value for group in groups for value in _both_signs(f"({', '.join(group)})")]  # x=1, y=2; x=3, y=4
    commas = [alternatives] if THOUSANDS_ONLY.fullmatch(alternatives) else list(split(alternatives, ","))
    return [value for part in commas for piece in split(part, ";") if piece for value in _both_signs(piece)]


def _both_signs(text: str) -> list[str]:
    r"""Return the two values that one \pm stands for."""
    if text.count(r"\pm") != 1 or r"\mp" in text:
        return [text]
    if match := SIGNED.fullmatch(text):
        center, half, below = number(match[2]), number(match[3]), number(match[4] or "1")
        if center and half and below and below.value:
            return [str((center.value + part) / below.value) for part in (half.value, -half.value)]
    before, _, after = text.partition(r"\pm")
    return [f"{before}{sign}{after}".strip() for sign in (("", "-") if not before.strip() else ("+", "-"))]


def solution(text: str) -> tuple[str, list[Ends]] | None:
    """Return the variable of an inequality against constants and the intervals it lies in; None for other texts."""
    builder = BUILDER.fullmatch(text)
    condition = builder[2] if builder else text
    if not INEQUALITY.search(condition):
        return None
    for pattern, bounds in BOUNDS:
        condition = " or ".join(pattern.sub(bounds, part) for part in OR.split(condition))
    bounded = [_bounds(bound) for bound in OR.split(condition)]
    known = [bound for bound in bounded if bound]
    names = {name for name, _ in known} | ({tight(builder[1])} if builder else set())
    if len(known) < len(bounded) or len(names) != 1:
        return None
    return names.pop(), [interval for _, interval in known]


def _bounds(text: str) -> tuple[str, Ends] | None:
    if (match := POINT.fullmatch(text)) and not variables(match[2]):
        return tight(match[1]), ("{}", match[2].strip(), "")
    match = BOUND.fullmatch(text)
    if not match or not (match[2] or match[4]):
        return None
    left, first, variable, second, right = match.groups()
    if any(variables(side or "") for side in (left, right)):
        return None
    upward = [sign in ("<", r"\leq") for sign in (first, second) if sign]
    if any(one != other for one, other in pairwise(upward)):
        return None
    if not upward[0]:
        left, first, second, right = right, second, first, left
    low, high = left or f"-{INFINITY}", right or INFINITY
    opens = "[" if first in (r"\leq", r"\geq") else "("
    closes = "]" if second in (r"\leq", r"\geq") else ")"
    return tight(variable), (opens + closes, low.strip(), high.strip())
