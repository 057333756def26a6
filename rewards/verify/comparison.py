"""Compares an answer with the gold answer: structure first, then numbers, words and units, algebra for the rest."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from microbudget_rl.actors.messages import Status
from microbudget_rl.rewards.verify.algebra import Unparsable, equivalent
from microbudget_rl.rewards.verify.names import (
    APPROXIMATELY,
    RELATION,
    SIMPLE,
    chain,
    is_combined,
    is_special,
    variables,
    with_argument,
    with_parameter,
)
from microbudget_rl.rewards.verify.numbers import number, rounds
from microbudget_rl.rewards.verify.shapes import Kind, Shape, shape
from microbudget_rl.rewards.verify.text import depth, split
from microbudget_rl.rewards.verify.text.words import TEXT, choice, labelled, phrase, product
from microbudget_rl.rewards.verify.units import compatible, compound, quantity, same

PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{4,}")
"""A word in an expression: longer than any product of letters."""

LETTER_BEHIND, COMMA = re.compile(r".*\d [A-Za-z]"), re.compile(r"-?\d+,\d+")
DECIMAL_COMMA = re.compile(r"^((?:[^.(\[\\]|\\[^{])*\d),(?=(?:\d\d|\d{4,}|(?<=\b0,)\d{3})(?!\d)[^.]*$)")
"""A comma that may be a decimal point: 1,5 is two values, and 1,234 is a thousand."""

THOUSANDS = re.compile(r"-?[1-9]\d{0,2}\.\d\d0")
"""Pattern of a decimal that ends in a superfluous zero, or of thousands as many languages write them."""

SPECIAL = re.compile(r"\\begin|\\setminus|\\mathbb|\\cap|\\backslash|\\mid|\||\\R\b")
"""Notation for sets and matrices that only algebra can compare."""

ORDERED = re.compile(
    r"\\(?:angle|measuredangle|triangle)(?![a-z])|\\vec.*\\times|\\frac\s*\{\s*(d|\\partial)[^{}]*\}\s*\{\s*\1"
    r"|\\pi.*(?:\^\\circ|%)"
)
"""Notation that algebra loses: an angle, a cross product, a derivative, a multiple of pi in degrees or percent."""

MOST_ELEMENTS = 128
"""Largest number of elements, nested ones included, for which other orders are tried."""

DEEPEST = 100
"""Deepest nesting of brackets: each level takes several nested calls, and Python allows 1,000."""

Equivalent = Callable[..., bool]
"""Decides whether two expressions are equal, as `rewards.verify.algebra.equivalent` does."""

ROOT = re.compile(r"-?\s*\\sqrt\s*(?:\[\d\])?\s*(?:\d|\{\s*(?:[\d./]{1,7}|\\frac\{\d{1,4}\}\{\d{1,4}\})\s*\})")
"""A root of a number so small that algebra tells it from a rational number."""

INFINITE = re.compile(r"[+-]?\s*\\infty")
MEANINGLESS = re.compile(r"(?<!\w) | (?!\w)|(?<=[_^])\{(\w)\}")


class NeedsAlgebra(Exception):
    """Only algebra can decide this comparison."""


def decide_by_text(gold: str, answer: str) -> Status | None:
    """Return the status of plain answers, None if algebra is needed. Takes microseconds, for long lists a second."""
    if not answer or not gold:
        return Status.UNPARSABLE
    try:
        return _status(gold, answer, _no_algebra)
    except NeedsAlgebra:
        return None


def compare(gold: str, answer: str) -> Status:
    """Return the status of a plain answer, by algebra if needed. May run for ever, or take all of the memory."""
    return _status(gold, answer, equivalent)


def readable(gold: str) -> bool:
    """Whether all parts of a plain gold answer are numbers, words, or equal to themselves. May run for ever."""
    if depth(gold) > DEEPEST:
        return False
    if labelled(gold)[0]:
        return True
    parsed = shape(gold)
    if parsed.kind is not Kind.SCALAR:
        return parsed.kind is Kind.TIME or all(part != gold and readable(part) for part in parsed.parts)
    text = parsed.parts[0]
    asked = quantity(text)
    if asked.number or asked.base or compound(text) or choice(text) or phrase(text) or INFINITE.fullmatch(asked.body):
        return True
    expression = text if is_equation(text) else asked.body
    try:
        return not PROSE.search(expression) and equivalent(expression, expression)
    except Unparsable:
        return False


def unusual(gold: str) -> str:
    """Return how a plain gold answer is read if its writer may mean something else; empty for other answers."""
    parsed = shape(gold)
    relation = parsed.kind is Kind.SCALAR and is_relation(parsed) and (not parsed.names or is_combined(parsed.names[0]))
    readings = {
        "a number and its unit": LETTER_BEHIND.fullmatch(gold) and quantity(gold).unit,
        "a time of day, and no ratio": parsed.kind is Kind.TIME,
        "two values, or a decimal where the answer is one with a point": COMMA.fullmatch(gold)
        and parsed.kind is Kind.LIST,
        "a decimal, and no thousands": THOUSANDS.fullmatch(gold),
        "an equation, which its right side alone does not answer": relation,
    }
    return next((reading for reading, applies in readings.items() if applies), "")


def _status(gold: str, answer: str, algebra: Equivalent) -> Status:
    if compact(answer) == compact(gold):
        return Status.CORRECT
    if max(depth(gold), depth(answer)) > DEEPEST:
        return Status.UNPARSABLE
    try:
        return Status.CORRECT if _same(gold, answer, algebra) else Status.WRONG
    except Unparsable:
        return Status.UNPARSABLE


def _same(gold: str, answer: str, algebra: Equivalent) -> bool:
    """Whether two plain answers are the same. A choice may have its letter, its value or both."""
    (letter, expected), (given_letter, given) = labelled(gold), labelled(answer)
    if "." in (both := expected + given) and both.count(",") == 1:
        expected, given = (DECIMAL_COMMA.sub(r"\1.", text) for text in (expected, given))
    asked_letter = letter or choice(gold)
    chosen = given_letter or choice(answer.upper() if asked_letter in "ABCDE" else answer)
    if asked_letter and chosen:
        return asked_letter == chosen and (not (letter and given_letter) or _same(expected, given, algebra))
    return matches(shape(expected), shape(given), algebra)


def _no_algebra(gold: str, answer: str, rounded: bool = False) -> bool:
    raise NeedsAlgebra


def matches(gold: Shape, answer: Shape, algebra: Equivalent) -> bool:
    """Whether two answers are the same, under the rules of `rewards.verify`."""
    if gold.kind is answer.kind is Kind.SCALAR:
        return equal_scalars(gold, answer, algebra)
    if not _names_allow(gold, answer):
        return False
    kinds = {gold.kind, answer.kind}
    if gold.kind is Kind.LIST is answer.kind:
        if gold.brackets != answer.brackets and all(part.isalpha() or phrase(part) for part in gold.parts):
            return False  # A or B is not A and B, but the roots 1 and 2 are 1 or 2
        if _of_different_names(gold) != _of_different_names(answer):
            return _in_order(gold.parts, answer.parts, algebra)  # x = 1, y = 2 are not two values of one unknown
    if kinds <= {Kind.LIST, Kind.SET} or kinds == {Kind.UNION}:
        golds = (*dict.fromkeys(gold.parts),) if gold.kind is Kind.SET else gold.parts
        return _any_order(golds, answer.parts, algebra)
    if kinds in ({Kind.SET, Kind.SCALAR}, {Kind.SET, Kind.SEQUENCE}) and (alone := _alone(gold, answer)):
        return matches(*alone, algebra)
    if kinds == {Kind.LIST, Kind.SEQUENCE}:
        point = {"()", ""} == {gold.brackets, answer.brackets} and not (gold.interval or answer.interval)
        return point and _in_order(gold.parts, answer.parts, algebra)
    if kinds == {Kind.TIME}:
        (*time, half), (*other_time, other_half) = gold.parts, answer.parts
        return time == other_time and (half == other_half or "" in (half, other_half))
    if kinds == {Kind.RATIO, Kind.SCALAR}:
        ratio, value = sorted((gold, answer), key=lambda parsed: parsed.kind)
        return _is_ratio(ratio.parts, value.parts, reduced=answer is ratio)
    if kinds == {Kind.MATRIX, Kind.SEQUENCE}:
        matrix, vector = sorted((gold, answer), key=lambda parsed: parsed.kind)
        flat = matrix.columns in (1, len(matrix.parts)) and not (matrix.brackets or vector.interval)
        return flat and gold.brackets != "[]" and _in_order(gold.parts, answer.parts, algebra)
    if Kind.SCALAR in kinds and kinds & {Kind.UNION, Kind.SEQUENCE, Kind.SET, Kind.MATRIX}:
        special = gold if gold.kind is Kind.SCALAR else answer
        return bool(SPECIAL.search(special.parts[0])) and algebra(written(gold), written(answer))
    form, other = ((parsed.kind, parsed.brackets, parsed.columns) for parsed in (gold, answer))
    return form == other and _in_order(gold.parts, answer.parts, algebra)


def _names_allow(gold: Shape, answer: Shape) -> bool:
    """Whether the names of two non-scalar answers agree, or are in their usual order: not (y, x)."""
    if gold.names and answer.names:
        return not set(gold.names).isdisjoint(answer.names)
    letters = [list(split(name[1:-1], ",")) for name in answer.names if name.startswith("(")]
    return all(names == sorted(names, key=lambda name: "~" if name[0] == "\\" else name) for names in letters)


def _in_order(golds: Sequence[str], answers: Sequence[str], algebra: Equivalent) -> bool:
    if len(golds) != len(answers):
        return False
    expected, given = [*map(shape, golds)], [*map(shape, answers)]
    if _sets(expected) != _sets(given):
        return False
    names = [parsed.names for parsed in given if parsed.names and SIMPLE.fullmatch(parsed.names[0])]
    if names and not any(parsed.names for parsed in expected) and names != sorted(set(names)):
        return False  # y = 1, x = 2 is not (1, 2)
    return all(matches(one, other, algebra) for one, other in zip(expected, given, strict=True))


def _any_order(golds: Sequence[str], answers: Sequence[str], algebra: Equivalent) -> bool:
    """Whether the elements pair up. Text decides each pair once, or each level of sets would double the work."""
    repeatable = len({*map(compact, golds)}) == len(golds) > 1  # a double root may be given twice
    if (
        not len(golds) <= len(answers) <= (MOST_ELEMENTS if repeatable else len(golds))
        or max(map(_elements, (golds, answers))) > MOST_ELEMENTS
    ):
        return False
    expected, left = [*map(shape, golds)], [*map(shape, answers)]
    if _sets(expected) != _sets(left):
        return False
    if len({_stem(parsed) for parsed in left}) > 1 and not any(parsed.names for parsed in expected):
        return False  # values of one unknown, and values of several
    open_golds: list[tuple[Shape, list[Shape]]] = []
    for gold in expected:
        undecided: list[Shape] = []
        for other in left:
            same = _by_text(gold, other)
            if same:
                left.remove(other)
                break
            if same is None:
                undecided.append(other)
        else:
            open_golds.append((gold, undecided))
    if not all(undecided for _, undecided in open_golds):
        return False
    if open_golds and algebra is _no_algebra:  # what follows would compare sets in sets twice at each level
        raise NeedsAlgebra
    for gold, undecided in open_golds:
        match = next((other for other in undecided if other in left and matches(gold, other, algebra)), None)
        if match is None:
            return False
        left.remove(match)
    return all(any(matches(gold, other, algebra) for gold in expected) for other in left)


def _alone(gold: Shape, answer: Shape) -> tuple[Shape, Shape] | None:
    """Return both answers with a one-element set replaced by its element; None if neither is one."""
    values = [
        shape(*parsed.parts) if parsed.kind is Kind.SET and len(parsed.parts) == 1 else parsed
        for parsed in (gold, answer)
    ]
    nested = any(parsed.kind is Kind.SET or compact(parsed.parts[0]) == r"\emptyset" for parsed in values)
    return None if nested else (values[0], values[1])


def _sets(shapes: Sequence[Shape]) -> int:
    """Return the number of sets: inside other structures a one-element set is not its element."""
    return sum(parsed.kind is Kind.SET for parsed in shapes)


def _is_ratio(ratio: Sequence[str], value: Sequence[str], reduced: bool) -> bool:
    """Whether a number is the quotient of two that are joined by a colon. reduced: whether 6:4 and 2:1 are not."""
    numbers = [number(part) for part in (*ratio, *value)]
    if len(numbers) != 3 or None in numbers:
        return False
    one, other, quotient = (part.value for part in numbers if part)
    return other != 0 and one == quotient * other and not (reduced and not quotient.denominator == other > 1)


def _elements(parts: Sequence[str]) -> int:
    return sum(1 + (part.count(",") + part.count(";")) * (r"\{" in part) for part in parts)


def _of_different_names(parsed: Shape) -> bool:
    return len({_stem(shape(part)) for part in parsed.parts}) > 1


def _stem(parsed: Shape) -> str:
    """Return the name of a value without its index: x_1 and x_2 are two values of x."""
    return parsed.names[0].partition("_")[0] if parsed.names else ""


def _by_text(gold: Shape, answer: Shape) -> bool | None:
    """Whether two answers are the same; None if only algebra can tell."""
    try:
        return matches(gold, answer, _no_algebra)
    except (NeedsAlgebra, Unparsable):
        return None


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
            return variables(one) == variables(other) and algebra(one, other)
        if gold.names and is_combined(gold.names[0]):
            return False
    if compact(expected) == compact(given):
        return True
    if is_equation(expected) or RELATION.search(given):
        return False
    sides = chain(given)
    if not all(_follows(left, right, sign, algebra) for (_, left), (sign, right) in pairwise(sides)):
        return False
    asked = quantity(expected).number
    values = _answers(sides, integral=asked is not None and not asked.ratio and asked.value.denominator == 1)
    return any(_equal(side, value, algebra) for _, side in chain(expected) for value in values)


def is_relation(parsed: Shape) -> bool:
    """Whether a scalar answer has a name, or is an equation."""
    return bool(parsed.names) or is_equation(parsed.parts[0])


def is_equation(text: str) -> bool:
    r"""Whether a text is a relation between letters; a chain of numbers such as 0.56 = 56\% is not."""
    return bool(RELATION.search(text)) or (len(chain(text)) > 1 and bool(variables(text)))


def written(parsed: Shape) -> str:
    """Write a shape as text again."""
    if parsed.kind is Kind.UNION:
        return r" \cup ".join(parsed.parts)
    if parsed.kind is Kind.SCALAR:
        return " = ".join((*parsed.names, parsed.parts[0]))
    if parsed.kind is Kind.MATRIX:
        rows = (
            " & ".join(parsed.parts[start : start + parsed.columns])
            for start in range(0, len(parsed.parts), parsed.columns)
        )
        return r"\begin{pmatrix}" + r"\\".join(rows) + r"\end{pmatrix}"
    joined = ", ".join(parsed.parts)
    if parsed.kind is Kind.SEQUENCE:
        return parsed.brackets[0] + joined + parsed.brackets[1]
    return rf"\{{{joined}\}}" if parsed.kind is Kind.SET else joined


def compact(text: str) -> str:
    """Remove meaningless spaces and braces: 1 234 and a b keep their space."""
    return MEANINGLESS.sub(r"\1", text)


def _equal(gold: str, answer: str, algebra: Equivalent) -> bool:
    """Whether two values are equal."""
    if compact(gold) == compact(answer):
        return True
    if amounts := compound(gold) or compound(answer):
        return amounts == compound(gold) == compound(answer)
    expected = quantity(gold)
    given = quantity(answer, expected.unit)
    if expected.base or given.base:
        return compatible(expected, given) and expected.body.lstrip("0") == given.body.lstrip("0")
    if expected.number is not None and not ROOT.fullmatch(given.body):
        return same(expected, given)  # a written-out number needs a written-out answer
    if (letter := choice(gold)) and letter == choice(answer):
        return True
    if INFINITE.fullmatch(gold) or INFINITE.fullmatch(answer):
        return compact(gold).lstrip("+") == compact(answer).lstrip("+")
    words_of_gold, words_of_answer = phrase(gold), phrase(answer)
    if words_of_gold or words_of_answer:
        return words_of_gold == words_of_answer
    if gold.isupper() and product(gold) and product(answer) and " " not in answer:
        return False  # points: AB is neither BA nor ab
    if ORDERED.search(gold + answer):
        return False
    if TEXT.search(given.body) and not TEXT.search(expected.body):
        return False  # words that are neither a number nor a unit
    body = with_parameter(expected.body, given.body)
    if variables(expected.body) != variables(body) or not compatible(expected, given):
        return False
    return algebra(expected.body, body)


def _answers(sides: list[tuple[str, str]], integral: bool) -> list[str]:
    r"""Return the sides that count as answers: not the rounding of a number, as in 12.4 \approx 12.

    integral: whether an integer is asked for, which no rounding is
    """
    pairs = zip([("", ""), *sides], sides, strict=False)
    return [side for (_, one), (sign, side) in pairs if sign != APPROXIMATELY or not (integral or quantity(one).number)]


def _follows(one: str, other: str, sign: str, algebra: Equivalent) -> bool:
    r"""Whether a side of a chain equals the one before it, or rounds it after \approx."""
    before, after = quantity(one), quantity(other)
    if sign == APPROXIMATELY:
        rounded = after.number
        if rounded is None or rounded.ratio or not compatible(before, after):
            return False
        if before.number is not None:
            return rounds(before.number.value, rounded)
        return not variables(before.body) and algebra(before.body, after.body, rounded=True)
    if before.number is not None and after.number is not None:
        return same(before, after) or same(after, before)
    if TEXT.search(before.body + after.body) or variables(before.body) != variables(after.body):
        return False
    return compatible(before, after) and algebra(before.body, after.body)
