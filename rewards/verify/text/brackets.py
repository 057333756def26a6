"""Splits text outside all brackets."""

from itertools import accumulate

OPENING, CLOSING = "([", ")]"


def split(text: str, separator: str) -> tuple[str, ...]:
    """Split a text at separators outside all brackets."""
    if separator not in text:
        return (text.strip(),)
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
