"""Takes an answer apart: what kind of thing it is, and its elements."""

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

OPENING, CLOSING = "([", ")]"
ENVIRONMENT = re.compile(
    r"\\begin\s*\{(matrix|pmatrix|bmatrix|vmatrix|Bmatrix|array|smallmatrix)\}(?:\s*\{[lcr| ]*\})?(.*)"
    r"\\end\s*\{\1\}",
    re.DOTALL,
)
WRAPPED = re.compile(r"(?:\(|\[)\s*(\\begin.*\\end\s*\{\w+\})\s*(?:\)|\])", re.DOTALL)
CONJUNCTION = re.compile(
    r"\s*,?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor\b|\\vee\b)\s*"
)
CONNECTED = re.compile(r"(\\leq|\\geq|\\neq|<|>|=|\\in(?![a-z]))")
VARIABLE = (
    r"(?:[A-Za-z](?:_\w|'|\s?\([a-z]\))?|\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega|text\{\s*\w+\s*\})|[A-Z]{2,3})"
)
NAMED = re.compile(rf"({VARIABLE})\s*(?:=|\\in(?![a-z]))\s*(.+)", re.DOTALL)
BOUND = re.compile(rf"(?:([^<>=]+?)\s*(<|>|\\leq|\\geq)\s*)?({VARIABLE})\s*(?:(<|>|\\leq|\\geq)\s*([^<>=]+))?")
INFINITY = r"\infty"


class Kind(StrEnum):
    """What an answer is."""

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
    variable: the name before "=" or between bounds, if there is one
    """

    kind: Kind
    parts: tuple[str, ...]
    brackets: str = ""
    columns: int = 0
    variable: str = ""


def shape(text: str) -> Shape:
    """Return the shape of a plain answer. A name before a single "=" is set apart; a chain of relations is a scalar."""
    text = _unwrapped(text.strip())
    if interval := _bounds(text):
        return interval
    if (match := NAMED.fullmatch(text)) and not CONNECTED.search(match[2]):
        inner = shape(match[2])
        return Shape(inner.kind, inner.parts, inner.brackets, inner.columns, re.sub(r"\s", "", match[1]))
    if len(union := split(text, r"\cup")) > 1:
        return Shape(Kind.UNION, union)
    if match := ENVIRONMENT.fullmatch(match[1] if (match := WRAPPED.fullmatch(text)) else text):
        rows = [re.split(r"\s*&\s*", row.strip()) for row in re.split(r"\\\\(?:\[\w+\])?", match[2]) if row.strip()]
        if rows and len({len(row) for row in rows}) == 1:
            return Shape(Kind.MATRIX, tuple(cell for row in rows for cell in row), columns=len(rows[0]))
    listed = tuple(piece for part in _elements(text) for piece in _both_signs(part))
    if len(listed) > 1:
        return Shape(Kind.LIST, listed)
    if text.startswith(r"\{") and text.endswith(r"\}") and not re.search(r"\\mid|\||:", text):
        return Shape(Kind.SET, tuple(piece for part in _elements(text[2:-2]) for piece in _both_signs(part)))
    if text[:1] and text[0] in OPENING and text[-1] in CLOSING and _partner(text) == len(text) - 1:
        parts = split(text[1:-1], ",")
        if len(parts) > 1:
            return Shape(Kind.SEQUENCE, parts, text[0] + text[-1])
    if ":" in text and len(parts := split(text, ":")) > 1:
        return Shape(Kind.RATIO, parts)
    return Shape(Kind.SCALAR, (text,))


def split(text: str, separator: str) -> tuple[str, ...]:
    """Split a text at separators outside all brackets."""
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        character = text[position]
        if depth <= 0 and text.startswith(separator, position):
            parts.append(text[start:position].strip())
            position = start = position + len(separator)
            continue
        if character == "\\" and text[position + 1 : position + 2] in ("{", "}"):
            position += 1
            character = text[position]
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        position += 1
    return (*parts, text[start:].strip())


def _elements(text: str) -> list[str]:
    """Split a list at commas, semicolons, "and" and "or"."""
    if not re.search(r"[,;]|and|or|\\vee", text):
        return [text]
    text = CONJUNCTION.sub(" ; ", text)
    commas = [text] if THOUSANDS_ONLY.fullmatch(text) else list(split(text, ","))
    return [piece for part in commas for piece in split(part, ";") if piece]


THOUSANDS_ONLY = re.compile(r"[^,;]*?(?<![\d.])\d{1,3}(?:,\d{3})+(?![\d,])[^,;]*")
"""Matches one number with separators of thousands, and what is around it."""


def _both_signs(text: str) -> list[str]:
    r"""Return the two values that one \pm stands for."""
    if text.count(r"\pm") != 1 or r"\mp" in text:
        return [text]
    before, _, after = text.partition(r"\pm")
    return [f"{before}{sign}{after}".strip() for sign in (("", "-") if not before.strip() else ("+", "-"))]


def _unwrapped(text: str) -> str:
    """Remove parentheses around one value: (12) is 12, (1, 2) stays."""
    while text.startswith("(") and _partner(text) == len(text) - 1 and len(split(text[1:-1], ",")) == 1:
        text = text[1:-1].strip()
    return text


def _partner(text: str) -> int:
    """Return the index of the bracket, ) or ], that closes the first one; -1 if none does."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in OPENING) - (character in CLOSING)
        if depth == 0:
            return position
    return -1


def _bounds(text: str) -> Shape | None:
    """Read an inequality of one variable against constants as an interval."""
    match = BOUND.fullmatch(text)
    if not match or not (match[2] or match[4]):
        return None
    left, first, variable, second, right = match.groups()
    if any(side and re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side)) for side in (left, right)):
        return None
    upward = [sign in ("<", r"\leq") for sign in (first, second) if sign]
    if any(one != other for one, other in pairwise(upward)):
        return None
    if not upward[0]:
        left, first, second, right = right, second, first, left
    low, high = left or f"-{INFINITY}", right or INFINITY
    opens = "[" if first in (r"\leq", r"\geq") else "("
    closes = "]" if second in (r"\leq", r"\geq") else ")"
    return Shape(Kind.SEQUENCE, (low.strip(), high.strip()), opens + closes, variable=variable)
