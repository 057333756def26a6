"""Finds problems that give each other away: copies, near duplicates, and rewordings."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from rewards.problems.rows import LAYOUT, RawProblem, normal
from rewards.problems.sources import progress
from rewards.verify.text.words import CARDINALS

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
"""Number words and their digits, without "one", which is seldom a number."""

CALCULATION = re.compile(r"\D*\d[\d.]*(?:[-+*/^()]+\d[\d.]*)+\D*")
"""Pattern of a normal text whose numbers are all operands of one calculation."""

Pieces = frozenset[tuple[object, ...]]


def near_duplicates(some: Sequence[RawProblem], others: Sequence[RawProblem]) -> list[set[int]]:
    """Return for each of some problems the indices of its copies and near duplicates in `others`.

    Near duplicates share half of their words and have the same numbers, or one has half of the other's text and no
    other numbers than it, or they have the same numbers and answer, which together tell them from other problems.
    Problems with different numbers are never near duplicates.
    """
    pieces = [_pieces(one) for one in some]
    holders: dict[object, list[int]] = {piece: [] for kinds in pieces for kind in kinds for piece in kind}
    same: dict[object, list[int]] = {}
    for mine, one in enumerate(some):
        for key in _keys(one):
            same.setdefault(key, []).append(mine)
    found: list[set[int]] = [set() for _ in some]
    for index, other in enumerate(progress(others, "problems compared")):
        for mine in chain(*(same.get(key, ()) for key in _keys(other))):
            found[mine].add(index)
        for piece in chain(*_pieces(other)):
            if (known := holders.get(piece)) is not None and len(known) <= BOILERPLATE:
                known.append(index)
    for mine, (grams, words, whole) in enumerate(pieces):
        found[mine].update(*(holders[each] for each in whole if len(holders[each]) <= BOILERPLATE))
        for index, shared, size in _shared(grams, holders):
            if shared >= SHARE * size and _contained(some[mine].text, others[index].text):
                found[mine].add(index)
        for index, shared, size in _shared(words, holders):
            if shared >= SHARE * max(size, len(_pieces(others[index])[1])):
                found[mine].add(index)
    return found


def _shared(pieces: Pieces, holders: dict[object, list[int]]) -> Iterator[tuple[int, int, int]]:
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
    text = PRODUCT.sub(lambda found: "*".join(sorted(found[0].split("*"))), TIMES.sub("*", normal(text)))
    return SUM.sub(lambda found: "+".join(sorted(found[0].split("+"))), text)


def _keys(one: RawProblem) -> list[object]:
    """Return the keys of which one is equal in copies and commuted problems, however many there are: the text, and of a
    single calculation its numbers and answer.
    """
    single = CALCULATION.fullmatch(TIMES.sub("*", normal(one.text)))
    return [commuted(one.text), *(_arithmetic(one.text.casefold(), one.gold) if single else ())]


def _pieces(one: RawProblem) -> tuple[Pieces, Pieces, Pieces]:
    """Return a problem's words and symbols as they follow each other, each word with all its numbers and signs, and
    these with the answer, if they have DIGITS digits.
    """
    text = LAYOUT.sub(" ", DRAWING.sub(" ", one.text.casefold()))
    pieces = PIECE.findall(text)
    figures = tuple(sorted(FIGURE.findall(TIMES.sub("*", text))))
    grams = frozenset(tuple(pieces[start : start + GRAM]) for start in range(len(pieces) - GRAM + 1))
    whole = _arithmetic(text, one.gold, least=DIGITS)
    return grams, frozenset((figures, piece) for piece in pieces if piece.isalpha()), whole


def _arithmetic(text: str, answer: str, least: int = 0) -> Pieces:
    """Return the numbers and signs of a text, and of its answer, in any spelling, as one piece; none if they have fewer
    digits.
    """
    asked, answered = (
        FIGURE.findall(TIMES.sub("*", PIECE.sub(lambda word: WORDS.get(word[0], word[0]), GROUPED.sub("", part))))
        for part in (text, answer.casefold())
    )
    telling = answered and len(asked) > 1 and sum(map(str.isdigit, chain(*asked, *answered))) >= least
    return frozenset([(*sorted(asked), "=", *answered)] if telling else ())


def first_families(problems: Sequence[RawProblem], wanted: int) -> list[int]:
    """Return, in order, the indices of at most `wanted` problems that have no near duplicate among the others.

    The first problems are taken, each with its whole family of near duplicates; a family that does not fit is left.
    """
    taken: list[int] = []
    decided: set[int] = set()
    while len(taken) < wanted:
        before = len(taken)
        fresh = list(islice((index for index in range(len(problems)) if index not in decided), wanted))
        families = _families(problems, fresh)
        for first in fresh:
            if first not in decided:
                decided |= families[first]
                if len(taken) + len(families[first]) <= wanted:
                    taken += families[first]
        if len(taken) == before:
            break
    return sorted(taken)


def _families(problems: Sequence[RawProblem], start: list[int]) -> dict[int, set[int]]:
    """Return the family of each of these problems: its near duplicates, theirs, and so on."""
    families: dict[int, set[int]] = {}
    compared: set[int] = set()
    while start:
        for one, others in zip(start, near_duplicates([problems[index] for index in start], problems), strict=True):
            family = set().union({one}, *(families.get(other, {other}) for other in (one, *others)))
            families |= dict.fromkeys(family, family)
        compared.update(start)
        start = [index for index in families if index not in compared]
    return families
