"""Finds the answer in a response, normalizes its spelling, reads its words, and splits it outside brackets."""

import re
from itertools import accumulate

OPENING, CLOSING = "([", ")]"


def split(text: str, separator: str) -> tuple[str, ...]:
    """Split a text at separators outside all brackets."""
    parts, depth, start = [], 0, 0
    for token in re.finditer(rf"{re.escape(separator)}|[()\[\]{{}}]", text) if separator in text else ():
        if token[0] != separator:
            depth += 1 if token[0] in "([{" else -1
        elif depth <= 0:
            parts.append(text[start : token.start()].strip())
            start = token.end()
    return (*parts, text[start:].strip())


def depth(text: str) -> int:
    """Return the largest number of open brackets in a text."""
    return max(accumulate((character in "([{") - (character in ")]}") for character in text), default=0)


def unwrapped(text: str) -> str:
    """Remove parentheses around one value: (12) is 12, (1, 2) stays."""
    text = text.strip()
    while text.startswith("(") and partner(text) == len(text) - 1 and len(split(text[1:-1], ",")) == 1:
        text = text[1:-1].strip()
    return text


def partner(text: str) -> int:
    """Return the index of the bracket, ) or ], that closes the first one; -1 if none does."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in OPENING) - (character in CLOSING)
        if depth == 0:
            return position
    return -1
