"""Takes an answer apart into its kind and its elements."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from rewards.verify.intervals import INFINITY, OR, solution
from rewards.verify.names import MEMBER, named
from rewards.verify.text.brackets import CLOSING, OPENING, partner, split, unwrapped
from rewards.verify.units import compound

ENVIRONMENT = re.compile(
    r"\\begin\s*\{(matrix|pmatrix|bmatrix|vmatrix|Bmatrix|array|smallmatrix)\}(?:\s*\{[lcr| ]*\})?(.*)"
    r"\\end\s*\{\1\}",
    re.DOTALL,
)
WRAPPED = re.compile(r"(?:\(|\[)\s*(\\begin.*\\end\s*\{\w+\})\s*(?:\)|\])", re.DOTALL)
CONJUNCTION = re.compile(
    r"\s*,?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor\b|\\vee\b)\s*"
)


class Kind(StrEnum):
    """The kind of an answer."""

    SCALAR = "scalar"  # one value or expression
    LIST = "list"  # several without brackets
    SET = "set"  # in braces
    SEQUENCE = "sequence"  # a tuple, point or interval, in parentheses or square brackets
    UNION = "union"  # of intervals or sets
    MATRIX = "matrix"  # rows of cells
    RATIO = "ratio"  # joined by colons


@dataclass(frozen=True)
class Shape:
    """An answer taken apart.

    parts: texts of the elements, row by row for a matrix
    brackets: of a sequence, such as "(]"
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
    if found := solution(text):
        return _intervals(*found)
    names, value = named(text)
    if names:
        return replace(inner := shape(value), names=names, interval=inner.interval or MEMBER.search(text) is not None)
    if compound(text):
        return Shape(Kind.SCALAR, (text,))
    if len(union := split(text, r"\cup")) > 1 or (union := _either(text)):
        return Shape(Kind.UNION, union)
    if match := ENVIRONMENT.fullmatch(match[1] if (match := WRAPPED.fullmatch(text)) else text):
        rows = [re.split(r"\s*&\s*", row.strip()) for row in re.split(r"\\\\(?:\[\w+\])?", match[2]) if row.strip()]
        if rows and len({len(row) for row in rows}) == 1:
            return Shape(Kind.MATRIX, tuple(cell for row in rows for cell in row), columns=len(rows[0]))
    if text.startswith(r"\{") and text.endswith(r"\}") and not re.search(r"\\mid|\||:|\\\}.*\\\{", text):
        return Shape(Kind.SET, tuple(_values(text[2:-2])))
    if len(listed := _values(text)) > 1:
        return Shape(Kind.LIST, tuple(listed))
    if text[:1] and text[0] in OPENING and text[-1] in CLOSING and partner(text) == len(text) - 1:
        parts = split(text[1:-1], ",")
        if len(parts) > 1:
            return Shape(Kind.SEQUENCE, parts, text[0] + text[-1], interval=INFINITY in text)
    if ":" in text and len(parts := split(text, ":")) > 1:
        return Shape(Kind.RATIO, parts)
    return Shape(Kind.SCALAR, (text,))


def _intervals(name: str, intervals: list[tuple[str, str, str]]) -> Shape:
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
    return [value for element in _elements(text) for value in _both_signs(element)]


def _elements(text: str) -> list[str]:
    """Split a list at commas, semicolons, "and" and "or"."""
    if not re.search(r"[,;]|and|or|\\vee", text):
        return [text]
    groups = [split(group, ",") for group in split(text, ";")]
    if len(groups) > 1 and len(sizes := {len(group) for group in groups}) == 1 and sizes != {1}:
        return [f"({', '.join(group)})" for group in groups]  # x=1, y=2; x=3, y=4
    text = CONJUNCTION.sub(" ; ", text)
    commas = [text] if THOUSANDS_ONLY.fullmatch(text) else list(split(text, ","))
    return [piece for part in commas for piece in split(part, ";") if piece]


THOUSANDS_ONLY = re.compile(r"[^,;]*?(?<![\d.])\d{1,3}(?:,\d{3})+(?![\d,])[^,;]*")
"""One number with thousands separators, and text around it."""


def _both_signs(text: str) -> list[str]:
    r"""Return the two values that one \pm stands for."""
    if text.count(r"\pm") != 1 or r"\mp" in text:
        return [text]
    before, _, after = text.partition(r"\pm")
    return [f"{before}{sign}{after}".strip() for sign in (("", "-") if not before.strip() else ("+", "-"))]
