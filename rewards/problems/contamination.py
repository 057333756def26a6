"""Finds training problems that give away held-out ones."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

GRAM = 8
"""Words and symbols in a row that form one piece. Shorter problems overlap only if they are the same."""

SHARE = 0.5
"""Fraction of a held-out problem's pieces that one training problem must share to count as overlapping."""

FEWEST = 4
"""Least number of shared pieces: fewer may be chance."""

BOILERPLATE = 10
"""Number of training problems above which a shared piece is a common phrase and is ignored."""

LAYOUT = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])(?![A-Za-z])|\$|\\[\[\]()]|~")
DRAWING = re.compile(r"(?s)\[asy\](?:(?!\[asy\]).)*?\[/asy\]")
PIECE = re.compile(r"[a-z]+|\d+|[^\s\w]")


def normal(text: str) -> str:
    """Return a problem without case, white space and LaTeX layout, so that copies become equal."""
    text = LAYOUT.sub(" ", text.casefold()).replace("dfrac", "frac").replace("tfrac", "frac")
    return re.sub(r"\s+", "", text)


def overlapping(train: list[str], heldout: Iterable[str]) -> list[bool]:
    """Return for each training problem whether it equals, or shares most of its text with, a held-out one."""
    same = set()
    holders: dict[tuple[str, ...], set[int]] = defaultdict(set)
    sizes: list[int] = []
    kept = [_grams(text) for text in train]
    common = {gram for gram, count in Counter(gram for grams in kept for gram in grams).items() if count > BOILERPLATE}
    for number, text in enumerate(heldout):
        same.add(normal(text))
        grams = _grams(text) - common
        sizes.append(len(grams))
        for gram in grams:
            holders[gram].add(number)
    found = []
    for text, grams in zip(train, kept, strict=True):
        shared = Counter(number for gram in grams for number in holders.get(gram, ()))
        alike = any(count >= max(FEWEST, SHARE * sizes[number]) for number, count in shared.items())
        found.append(alike or normal(text) in same)
    return found


def _grams(text: str) -> set[tuple[str, ...]]:
    pieces = PIECE.findall(LAYOUT.sub(" ", DRAWING.sub(" ", text.casefold())))
    return {tuple(pieces[start : start + GRAM]) for start in range(len(pieces) - GRAM + 1)}
