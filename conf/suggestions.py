"""Names close to a mistyped one."""

from collections.abc import Iterable
from difflib import SequenceMatcher

SUGGESTIONS = 3
LONGEST = 100
"""Characters that are compared; the time for it grows with their square."""

SIMILAR = 0.6
"""difflib's own cutoff for a close match."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three close names, closest first, compared without case, whole and by what follows the last dot."""
    name = name[:LONGEST]
    scored = sorted(((_likeness(name, other), other) for other in known), key=lambda pair: (-pair[0], pair[1]))
    return [other for likeness, other in scored[:SUGGESTIONS] if likeness >= SIMILAR]


def hint(name: str, known: Iterable[str]) -> str:
    """Return the nearest names as part of a refusal; empty if there are none."""
    close = nearest(name, known)
    return f"nearest: {', '.join(close)}; " if close else ""


def _likeness(name: str, other: str) -> float:
    name, other = name.lower(), other.lower()
    pairs = [(name, other), (name.rpartition(".")[2], other.rpartition(".")[2])]
    return max(SequenceMatcher(None, a, b).ratio() for a, b in pairs)
