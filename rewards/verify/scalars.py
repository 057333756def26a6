"""Compares single values and equations: numbers with units, words, chains of equal values; algebra for the rest."""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

from rewards.verify.algebra import Unparsable, refused
from rewards.verify.names import (
    APPROXIMATELY,
    RELATION,
    chain,
    is_combined,
    is_special,
    variables,
    with_argument,
    with_parameter,
)
from rewards.verify.numbers import rounds
from rewards.verify.shapes import Kind, Shape
from rewards.verify.text.words import TEXT, choice, phrase
from rewards.verify.units import Quantity, compatible, compound, quantity, same, words_of


class Equivalent(Protocol):
    """Whether two expressions are equal, or the answer is the gold value rounded."""

    def __call__(self, gold: str, answer: str, rounded: bool = False) -> bool: ...


INFINITE = re.compile(r"[+-]?\s*\\infty")
MEANINGLESS = re.compile(r"(?<!\w) | (?!\w)|(?<=[_^])\{(\w)\}")


def equal_scalars(gold: Shape, answer: Shape, algebra: Equivalent) -> bool:
    """Whether two scalar answers are the same. The sides of a chain such as x = 24/2 = 12 have to agree."""
    names, value = with_argument(gold.names, answer.names, answer.parts[0])
    answer = replace(answer, names=names, parts=(value,))
    expected, given = gold.parts[0], value
    if set(gold.names).isdisjoint(answer.names):
        if is_relation(gold) and is_relation(answer):
            if any(map(is_special, (*gold.names, *answer.names))):
                return False
            one, other = written(gold), written(answer)  # y = 2x and x = y/2 are the same line, y = 1 and x = 1 not
            return variables(one) == variables(other) and by_algebra(one, other, algebra)
        if gold.names and is_combined(gold.names[0]):
            return False
    if compact(expected) == compact(given):
        return True
    if is_equation(expected) or RELATION.search(given):
        return False
    words, sides = words_of(expected), chain(given)
    return _agree(sides, algebra) and any(
        _equal(side, value, words, algebra) for _, side in chain(expected) for value in _answers(sides)
    )


def is_relation(of: Shape) -> bool:
    """Whether a scalar answer has a name, or is an equation."""
    return bool(of.names) or is_equation(of.parts[0])


def is_equation(text: str) -> bool:
    r"""Whether a text is a relation between letters; a chain of numbers such as 0.56 = 56\% is not."""
    return bool(RELATION.search(text)) or (len(chain(text)) > 1 and bool(variables(text)))


def by_algebra(gold: str, answer: str, algebra: Equivalent, rounded: bool = False) -> bool:
    """Decide by algebra; raise Unparsable for an expression that would fill the memory."""
    if refused(answer) or refused(gold):
        raise Unparsable
    return algebra(gold, answer, rounded)


def written(of: Shape) -> str:
    """Write a shape as text again."""
    if of.kind is Kind.UNION:
        return r" \cup ".join(of.parts)
    if of.kind is Kind.SCALAR:
        return " = ".join((*of.names, of.parts[0]))
    joined = ", ".join(of.parts)
    if of.kind is Kind.SEQUENCE:
        return of.brackets[0] + joined + of.brackets[1]
    return rf"\{{{joined}\}}" if of.kind is Kind.SET else joined


def compact(text: str) -> str:
    """Remove meaningless spaces and braces: 1 234 and a b keep their space."""
    return MEANINGLESS.sub(r"\1", text)


def _equal(gold: str, answer: str, words: frozenset[str], algebra: Equivalent) -> bool:
    """Whether two values are equal. words: further words that may follow a number, besides known units."""
    if compact(gold) == compact(answer):
        return True
    if amounts := compound(gold) or compound(answer):
        return amounts == compound(gold) == compound(answer)
    expected, given = quantity(gold, words), quantity(answer, words)
    if expected.base or given.base:
        return compatible(expected, given) and expected.body.lstrip("0") == given.body.lstrip("0")
    if expected.number is not None:
        return same(expected, given)  # a written-out number needs a written-out answer
    if (letter := choice(gold)) and letter == choice(answer):
        return True
    if INFINITE.fullmatch(gold) or INFINITE.fullmatch(answer):
        return compact(gold).lstrip("+") == compact(answer).lstrip("+")
    words_of_gold, words_of_answer = phrase(gold), phrase(answer)
    if words_of_gold or words_of_answer:
        return words_of_gold == words_of_answer
    if TEXT.search(given.body) and not TEXT.search(expected.body):
        return False  # words that are neither a number nor a unit
    body = with_parameter(expected.body, given.body)
    if variables(expected.body) != variables(body) or not compatible(expected, given):
        return False
    return by_algebra(expected.body, body, algebra)


def _answers(sides: list[tuple[str, str]]) -> list[str]:
    r"""Return the sides that count as answers: not the rounding of a number, as in 12.4 \approx 12."""
    pairs = zip([None, *sides], sides, strict=False)
    return [
        side for before, (sign, side) in pairs if not (sign == APPROXIMATELY and before and quantity(before[1]).number)
    ]


def _agree(sides: list[tuple[str, str]], algebra: Equivalent) -> bool:
    r"""Whether each side of a chain equals the one before it, or rounds it after \approx."""
    quantities = [(sign, quantity(side)) for sign, side in sides]
    return all(_follows(before, after, sign, algebra) for (_, before), (sign, after) in pairwise(quantities))


def _follows(before: Quantity, after: Quantity, sign: str, algebra: Equivalent) -> bool:
    if sign == APPROXIMATELY:
        rounded = after.number
        if rounded is None or rounded.ratio or not compatible(before, after):
            return False
        if before.number is not None:
            return rounds(before.number.value, rounded)
        return not variables(before.body) and by_algebra(before.body, after.body, algebra, rounded=True)
    if before.number is not None and after.number is not None:
        return same(before, after) or same(after, before)
    if TEXT.search(before.body + after.body) or variables(before.body) != variables(after.body):
        return False
    return compatible(before, after) and by_algebra(before.body, after.body, algebra)
