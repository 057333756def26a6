"""Finds problems that give each other away: copies, near duplicates, and rewordings."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from microbudget_rl.rewards.problems.rows import LAYOUT, AnyProblem, normal
from microbudget_rl.rewards.problems.sources import progress
from microbudget_rl.rewards.verify.text.words import CARDINALS

GRAM = 8
"""Words and symbols in a row that form one piece of a text. A shorter problem has only its words."""

SHARE = 0.5
"""Fraction of the pieces that near duplicates share."""

FEWEST = 4
"""Least number of shared pieces: fewer may be chance."""

DIGITS = 7
"""Least number of digits in a problem and its answer that tell it from others: fewer may be equal by chance. Of the
28 million pairs in GSM8K's training problems, 13 have 7 equal ones, and 41 have 6."""

BOILERPLATE = 10
"""Number of problems above which a piece is a common phrase and is ignored. It also bounds the comparisons."""

DRAWING = re.compile(r"(?s)\[asy\](?:(?!\[asy\]).)*?\[/asy\]")
PIECE = re.compile(r"[a-z]+|\d+|[^\s\w]")

TIMES = re.compile(r"\\times(?![a-z])|\\cdot(?![a-z])|[×·⋅]")
NUMBER = r"\d+(?:\.\d+)?"
PRODUCT = re.compile(rf"(?<![\d.^/*]){NUMBER}(?:\*{NUMBER})+(?![\d^*]|\.\d)")
SUM = re.compile(rf"(?<![\d.^/*+-]){NUMBER}(?:\*{NUMBER})*(?:\+{NUMBER}(?:\*{NUMBER})*)+(?![\d^*/]|\.\d)")

FIGURE = re.compile(rf"{NUMBER}|[-+*/^](?=\s*\d)")
"""Pattern of a number, or of the sign before one."""

GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
WORDS = {word: str(value) for word, value in CARDINALS.items() if value != 1}
WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(WORDS)})(?![a-z])")
"""Number words and their digits, without "one", which is seldom a number."""

CALCULATION = re.compile(r"\D*\d[\d.]*(?:[-+*/^()]+\d[\d.]*)+\D*")
"""Pattern of a normal text whose numbers are all operands of one calculation."""


class Pieces(NamedTuple):
    """What problems are compared by.

    keys: equal in copies and commuted problems, however many there are: the text, and of a single calculation its
        numbers and answer
    grams: words and symbols as they follow each other
    words: each word with all the numbers and signs
    whole: these with the answer, if they have DIGITS digits
    """

    keys: Sequence[object]
    grams: frozenset[object]
    words: frozenset[object]
    whole: frozenset[object]


def near_duplicates(some: Sequence[AnyProblem], others: Sequence[AnyProblem]) -> list[set[int]]:
    """Return for each of some problems the indices of its copies and near duplicates in `others`.

    Near duplicates share half of their words and have the same numbers, or one has half of the other's text and no
    other numbers than it, or they have the same numbers and answer, which together tell them from other problems.
    Problems with different numbers are never near duplicates.
    """
    pieces = [pieces_of(one) for one in some]
    holders: dict[object, list[int]] = {piece: [] for compared in pieces for piece in chain(*compared[1:])}
    same: dict[object, list[int]] = {}
    for mine, compared in enumerate(pieces):
        for key in compared.keys:
            same.setdefault(key, []).append(mine)
    duplicates: list[set[int]] = [set() for _ in some]
    for index, other in enumerate(progress(others, "problems compared")):
        theirs = pieces_of(other)
        for mine in chain(*(same.get(key, ()) for key in theirs.keys)):
            duplicates[mine].add(index)
        for piece in chain(*theirs[1:]):
            if (known := holders.get(piece)) is not None and len(known) <= BOILERPLATE:
                known.append(index)
    for mine, compared in enumerate(pieces):
        duplicates[mine].update(*(holders[piece] for piece in compared.whole if len(holders[piece]) <= BOILERPLATE))
        for index, shared, size in _shared(compared.grams, holders):
            if shared >= SHARE * size and _contained(some[mine].text, others[index].text):
                duplicates[mine].add(index)
        for index, shared, size in _shared(compared.words, holders):
            if shared >= SHARE * max(size, len(pieces_of(others[index]).words)):
                duplicates[mine].add(index)
    return duplicates


def _shared(pieces: frozenset[object], holders: dict[object, list[int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the problems that share at least FEWEST pieces: index, number of shared ones, and of those that count."""
    telling = [piece for piece in pieces if len(holders[piece]) <= BOILERPLATE]
    for index, shared in Counter(index for piece in telling for index in holders[piece]).items():
        if shared >= FEWEST:
            yield index, shared, len(telling)


def _contained(one: str, other: str) -> bool:
    """Whether one of two problems has no other numbers than the other."""
    here, there = (Counter(re.findall(NUMBER, DRAWING.sub(" ", text))) for text in (one, other))
    return not here - there or not there - here


def commuted(text: str) -> str:
    """Return the normal form of a problem with the operands of its sums and products of numbers in order."""
    text = PRODUCT.sub(lambda match: "*".join(sorted(match[0].split("*"))), TIMES.sub("*", normal(text)))
    return SUM.sub(lambda match: "+".join(sorted(match[0].split("+"))), text)


def pieces_of(one: AnyProblem) -> Pieces:
    text = LAYOUT.sub(" ", DRAWING.sub(" ", one.text.casefold()))
    pieces = PIECE.findall(text)
    figures = tuple(sorted(FIGURE.findall(TIMES.sub("*", text))))
    grams = frozenset(tuple(pieces[start : start + GRAM]) for start in range(len(pieces) - GRAM + 1))
    words = frozenset((figures, piece) for piece in pieces if piece.isalpha())
    asked, answered = _spelled(text), _spelled(one.gold.casefold())
    arithmetic = [(*sorted(asked), "=", *answered)] if answered and len(asked) > 1 else []
    single = CALCULATION.fullmatch(TIMES.sub("*", normal(one.text)))
    telling = sum(map(str.isdigit, chain(*asked, *answered))) >= DIGITS
    keys = [commuted(one.text), *(arithmetic if single else [])]
    return Pieces(keys, grams, words, frozenset(arithmetic if telling else []))


def _spelled(text: str) -> list[str]:
    """Return the numbers and signs of a text, in any spelling."""
    digits = WORD.sub(lambda word: WORDS[word[0]], GROUPED.sub("", text))
    return FIGURE.findall(TIMES.sub("*", digits))
