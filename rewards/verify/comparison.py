"""Compares an answer with the gold one: structure first, then numbers, words and units, and algebra for the rest."""

import re
from collections.abc import Callable, Sequence

from actors.messages import Status
from rewards.verify.algebra import Unparsable, equivalent, refused
from rewards.verify.numbers import number
from rewards.verify.shapes import CONNECTED, Kind, Shape, shape
from rewards.verify.units import compatible, quantity, same

Equivalent = Callable[[str, str], bool]

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
CHOICE = re.compile(r"\(?\s*(?:\\text\{\s*)?\(?\s*([A-Z])\s*\)?\s*\}?\s*\)?\s*\.?")
TEXT = re.compile(r"\\text\{([^{}]*)\}")
PHRASE = re.compile(r"\(?[A-Za-z][A-Za-z']*(?:[ ,-]+[A-Za-z0-9']+)*\)?")
SYMBOLS = frozenset({"pi", "inf", "infty", "infinity"})
"""Names that stand for a value, though they look like words."""

INFINITE = re.compile(r"[+-]?\s*\\infty")

COMMAND = re.compile(r"\\[A-Za-z]+")
CONSTANTS = {"e", "i"}

PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{4,}")
"""A word in an expression, where no product of letters is as long."""

EMPTY_SET = r"\emptyset"

SPACE = re.compile(r"(?<!\w) | (?!\w)")

SPECIAL = re.compile(r"\\setminus|\\mathbb|\\cap|\\backslash|\\mid|\||\\R\b")
"""Sets that only algebra can compare."""

MOST_WORDS = 8
"""Words of an answer; more are an explanation."""

MOST_ELEMENTS = 64
"""Elements of an answer; with more, other orders are not tried."""


class NeedsAlgebra(Exception):
    """Only algebra can decide."""


def decide_by_text(gold: str, answer: str) -> Status | None:
    """Return the status where no algebra is needed, else None, within microseconds. Both answers are plain."""
    if not answer or not gold:
        return Status.UNPARSABLE
    if answer == gold:
        return Status.CORRECT
    if INTEGER.fullmatch(answer) and INTEGER.fullmatch(gold):
        return Status.CORRECT if int(answer) == int(gold) else Status.WRONG
    try:
        return _status(gold, answer, _no_algebra)
    except NeedsAlgebra:
        return None


def compare(gold: str, answer: str) -> Status:
    """Return the status of a plain answer, by algebra where needed. May run for ever, or take the process's memory."""
    return _status(gold, answer, equivalent)


def readable(gold: str) -> bool:
    """Whether every part of a plain gold answer is a number, words, or equal to itself as mathematics.

    May run for ever, or take the process's memory.
    """
    of = shape(gold)
    if of.kind is not Kind.SCALAR:
        return all(part != gold and readable(part) for part in of.parts)
    text = of.parts[0]
    body = quantity(text).body
    if number(body) or quantity(text).base or _choice(text) or _phrase(text) or INFINITE.fullmatch(body):
        return True
    sides = _text(of).split("=")
    if len(sides) > 1 and all(quantity(side.strip()).number for side in sides):
        return True
    if compact(text) == EMPTY_SET:
        return True
    expression = quantity(_text(of)).body
    try:
        return not PROSE.search(expression) and _by_algebra(expression, expression, equivalent)
    except Unparsable:
        return False


def _status(gold: str, answer: str, algebra: Equivalent) -> Status:
    if compact(answer) == compact(gold):
        return Status.CORRECT
    try:
        return Status.CORRECT if matches(shape(gold), shape(answer), algebra) else Status.WRONG
    except Unparsable:
        return Status.UNPARSABLE


def _no_algebra(gold: str, answer: str) -> bool:
    raise NeedsAlgebra


def matches(gold: Shape, answer: Shape, algebra: Equivalent) -> bool:
    """Whether two answers are the same, under the rules of `rewards.verify`."""
    if gold.variable and answer.variable and gold.variable != answer.variable and gold.kind is not Kind.SCALAR:
        return False
    if gold.kind is answer.kind is Kind.SCALAR:
        named = gold.variable if gold.variable == answer.variable else ""
        if not named and _is_relation(gold) and _is_relation(answer):
            return _relations(_text(gold), _text(answer), algebra)
        return _scalars(gold.parts[0], answer.parts[0], algebra)
    kinds = {gold.kind, answer.kind}
    if kinds <= {Kind.LIST, Kind.SET}:
        return _any_order(gold.parts, answer.parts, algebra)
    if Kind.SCALAR in kinds and kinds <= {Kind.SCALAR, Kind.SET} and len(gold.parts) == len(answer.parts) == 1:
        return _scalars(gold.parts[0], answer.parts[0], algebra)
    if kinds == {Kind.LIST, Kind.SEQUENCE}:
        return "()" in (gold.brackets, answer.brackets) and _in_order(gold.parts, answer.parts, algebra)
    if Kind.SCALAR in kinds and kinds & {Kind.UNION, Kind.SEQUENCE, Kind.SET}:
        special = gold if gold.kind is Kind.SCALAR else answer
        return bool(SPECIAL.search(special.parts[0])) and _by_algebra(_text(gold), _text(answer), algebra)
    if gold.kind is not answer.kind:
        return False
    if gold.kind is Kind.UNION:
        return _any_order(gold.parts, answer.parts, algebra)
    return (gold.brackets, gold.columns) == (answer.brackets, answer.columns) and _in_order(
        gold.parts, answer.parts, algebra
    )


def _in_order(golds: Sequence[str], answers: Sequence[str], algebra: Equivalent) -> bool:
    names = [name for answer in answers if (name := shape(answer).variable)]
    if names and not any(shape(gold).variable for gold in golds) and names != sorted(set(names)):
        return False  # y = 1, x = 2 is not (1, 2)
    return len(golds) == len(answers) and all(
        matches(shape(gold), shape(answer), algebra) for gold, answer in zip(golds, answers, strict=True)
    )


def _any_order(golds: Sequence[str], answers: Sequence[str], algebra: Equivalent) -> bool:
    """Whether the elements pair up. Cheap pairs are found first, so that algebra sees only the rest."""
    if len(golds) != len(answers) or len(golds) > MOST_ELEMENTS:
        return False
    names = {shape(answer).variable for answer in answers}
    if len(names) > 1 and not any(shape(gold).variable for gold in golds):
        return False  # x = 1, y = 2 are not two values of one unknown
    left = [shape(answer) for answer in answers]
    open_golds: list[Shape] = []
    for gold in map(shape, golds):
        if (match := next((other for other in left if _surely(gold, other)), None)) is not None:
            left.remove(match)
        else:
            open_golds.append(gold)
    for gold in open_golds:
        if (match := next((other for other in left if matches(gold, other, algebra)), None)) is None:
            return False
        left.remove(match)
    return True


def _surely(gold: Shape, answer: Shape) -> bool:
    try:
        return matches(gold, answer, _no_algebra)
    except (NeedsAlgebra, Unparsable):
        return False


def _scalars(gold: str, answer: str, algebra: Equivalent) -> bool:
    if compact(gold) == compact(answer):
        return True
    if CONNECTED.search(gold) or CONNECTED.search(answer):
        return _equations(gold, answer, algebra)
    expected, given = quantity(gold), quantity(answer)
    if expected.base or given.base:
        return compatible(expected, given) and expected.body.lstrip("0") == given.body.lstrip("0")
    if expected.number is not None:
        return same(expected, given)  # a number that is written out asks for one that is, too
    if (letter := _choice(gold)) and letter == _choice(answer):
        return True
    if INFINITE.fullmatch(gold) or INFINITE.fullmatch(answer):
        return compact(gold).lstrip("+") == compact(answer).lstrip("+")
    phrase, other = _phrase(gold), _phrase(answer)
    if phrase or other:
        return phrase == other
    if variables(expected.body) != variables(given.body) or not compatible(expected, given):
        return False
    return _by_algebra(expected.body, given.body, algebra)


def _equations(gold: str, answer: str, algebra: Equivalent) -> bool:
    """Where one side is a chain of relations. `0.56 = 56\\%` as a gold answer takes either."""
    if CONNECTED.search(gold):
        sides = [side.strip() for side in gold.split("=")]
        if not CONNECTED.search(answer):
            literal = all(quantity(side).number is not None for side in sides)
            return literal and any(_scalars(side, answer, algebra) for side in sides)
        return _relations(gold, answer, algebra)
    return False


def _relations(gold: str, answer: str, algebra: Equivalent) -> bool:
    """Whether two relations are the same: y = 2x and x = y/2 are the same line, y = 1 and x = 1 are not."""
    return variables(gold) == variables(answer) and _by_algebra(gold, answer, algebra)


def _is_relation(of: Shape) -> bool:
    return bool(of.variable or CONNECTED.search(of.parts[0]))


def _by_algebra(gold: str, answer: str, algebra: Equivalent) -> bool:
    if refused(answer) or refused(gold):
        raise Unparsable
    return algebra(gold, answer)


def _text(of: Shape) -> str:
    """Write a shape as text again."""
    if of.kind is Kind.UNION:
        return r" \cup ".join(of.parts)
    if of.kind is Kind.SCALAR and of.variable:
        return f"{of.variable} = {of.parts[0]}"
    joined = ", ".join(of.parts)
    if of.kind is Kind.SEQUENCE:
        return of.brackets[0] + joined + of.brackets[1]
    return rf"\{{{joined}\}}" if of.kind is Kind.SET else joined


def variables(text: str) -> set[str]:
    r"""Return the letters that stand for something else than a number; commands such as \alpha count whole."""
    names = re.findall(r"\\(?:alpha|beta|gamma|delta|theta|phi|lambda|mu|omega)(?![A-Za-z])", text)
    return {*names, *re.findall(r"[A-Za-z]", COMMAND.sub("", TEXT.sub("", text)))} - CONSTANTS


def compact(text: str) -> str:
    """Remove the spaces that mean nothing: 1 234 and a b keep theirs."""
    return SPACE.sub("", text)


def _choice(text: str) -> str:
    match = CHOICE.fullmatch(text)
    return match[1] if match else ""


def _phrase(text: str) -> str:
    """Return words in lower case, empty if the text is none; algebra would take "east" for a product of letters."""
    unwrapped = TEXT.sub(r"\1", text).strip()
    match = PHRASE.fullmatch(unwrapped)
    if not match or number(unwrapped) is not None:
        return ""
    words = re.findall(r"[a-z0-9']+", unwrapped.lower())
    if len(words) > MOST_WORDS:
        return ""
    spelt = any(len(word) > 1 and word.isalpha() for word in words)
    return " ".join(words) if spelt and SYMBOLS.isdisjoint(words) else ""
