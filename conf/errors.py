"""The exception for input that a person must change, and what makes its text fit to be shown and of use."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from unicodedata import category

MOST_CHARACTERS = 1000
"""Characters of one fault that are shown. Input may be of any length, and the remedy stands at the end."""

MOST_FAULTS = 20
"""Faults that are shown at once."""

SUGGESTIONS = 3
"""Close names that are suggested for a mistyped one."""

LONGEST = 100
"""Characters of a name that are compared; the time grows with their square."""

SIMILAR = 0.6
"""difflib's own cutoff for a close match."""


class BadInput(Exception):
    """Bad configuration, data, checkpoint or name. Each fault is a sentence on a line of its own: thing, value, remedy.

    Commands print it and exit with code 2, before anything expensive has started.
    """

    def __init__(self, *faults: str) -> None:
        left = len(faults) - MOST_FAULTS
        super().__init__("\n".join([*map(_short, faults[:MOST_FAULTS]), *([f"and {left} more"] if left > 0 else [])]))


def _short(text: str) -> str:
    text, half = printable(" ".join(text.split())), MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} … {text[-half:]}"


def in_brief(error: BaseException) -> str:
    """Return the kind and text of an error on one line of at most 300 characters."""
    return printable(" ".join(f"{type(error).__name__}: {error}".split()))[:300]


def printable(text: str, keep: str = "") -> str:
    """Return a text with escapes for characters that move the cursor, turn the direction of writing or are half a pair.

    keep: characters that stay, such as the end of a line.
    """
    return "".join(
        character
        if character.isprintable() or character in keep or category(character) == "Zs"
        else repr(character)[1:-1]
        for character in text
    )


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three close names, closest first. Case does not count, and the part after the last dot may do."""
    name = name[:LONGEST]
    scored = sorted(((_likeness(name, other), other) for other in known), key=lambda pair: (-pair[0], pair[1]))
    return [other for likeness, other in scored[:SUGGESTIONS] if likeness >= SIMILAR]


def hint(name: str, known: Iterable[str]) -> str:
    """Return the nearest names as part of a message; empty if there are none."""
    close = nearest(name, known)
    return f"nearest: {', '.join(close)}; " if close else ""


def _likeness(name: str, other: str) -> float:
    name, other = name.lower(), other.lower()
    pairs = [(name, other), (name.rpartition(".")[2], other.rpartition(".")[2])]
    return max(SequenceMatcher(None, a, b).ratio() for a, b in pairs)
