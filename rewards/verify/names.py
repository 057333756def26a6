r"""Tells names from values in a chain of equalities: m+n = 113, f(3) = 7, x = \frac{24}{2} = 12, \frac58 = 0.625.

The text before a value is a *name* if it only names the quantity: a letter, words, a function of something, or a
combination of at least two letters, m+n or x^2+y^2. An expression in one letter is not, nor is a difference: 2x = 3 and
x-y = 3 are still to be solved.
"""

import re
from collections.abc import Sequence
from itertools import product

from microbudget_rl.rewards.verify.text import split
from microbudget_rl.rewards.verify.text.words import CHANGES, DENIALS, TEXT

APPROXIMATELY = r"\approx"
RELATION = re.compile(
    r"\\leq|\\geq|\\neq|\\not(?![a-z])|<|>|\\in(?![a-z])|\\equiv|\\sim(?![a-z])|\\to(?![a-z])"
    r"|\\(?:implies|iff|therefore|because|mapsto|(?:[lL]ong)?(?:[lL]eft)?[rR]ightarrow)(?![a-z])"
)
MEMBER = re.compile(r"\\in(?![a-z])")
CONJUNCTION = re.compile(
    r"\s*,?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor\b|\\vee\b)\s*"
)

SUBSCRIPT = r"(?:_(?:\w|\{[^{}]*(?:\{[^{}]*\}[^{}]*)?\}))"
GREEK = (
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|kappa|lambda|mu|nu|xi|rho|sigma|tau|(?:var)?phi"
    r"|chi|psi|omega|Delta|Gamma|Theta|Lambda|Pi|Sigma|Phi|Psi|Omega|ell)(?![A-Za-z])"
)
LETTER = rf"(?:[A-Za-z]|{GREEK})'*\s?{SUBSCRIPT}?"
SIMPLE = re.compile(
    rf"({LETTER})'*(?:\s*\^\s*\{{?\s*(?:\*|\\ast|\\star)\s*\}}?)?"
    r"|\\(?:vec|hat|bar|tilde|overline|overrightarrow|overleftrightarrow|widehat|overarc)\s*(?:\{[^{}]*\}|[A-Za-z])"
    rf"|[A-Z]'?(?:[A-Z]'?){{1,3}}{SUBSCRIPT}?"
)
"""A letter, an accented one, or points: x_1, \theta, \vec{v}, AB."""

TUPLE = re.compile(rf"\(\s*{LETTER}(?:\s*,\s*{LETTER})+\s*\)")
TRIGONOMETRY = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![A-Za-z])")
FUNCTION = re.compile(
    r"\\(?:gcd|lcm|max|min|sup|det|dim|deg|arg|Pr|angle|measuredangle|triangle|sum|prod|i?int|oint|lim|Re|Im|mathbb"
    r"|mathcal)(?![A-Za-z])"
    rf"|(?:[fghpquvwA-Z]|{GREEK}|\\text\{{\s*[A-Za-z]+\s*\}})'*{SUBSCRIPT}?(?:\s*\^\s*(?:\{{[^{{}}]*\}}|\w))?\s*[(\[]"
    r"|\\frac\s*\{\s*(?:d|\\partial)|m\s*\\angle"
)
"""Start of a function of something."""

MAGNITUDE = re.compile(
    r"\\?\|(?!\s*[a-uxy]\s*\|)[^|\d]+\||\\#.+|\[[A-Z]{2,}\]|\\l(?:floor|ceil)[^\d]+\\r(?:floor|ceil)|.*(?:\\[cl]?dots|\.\.\.).*"
)
"""An absolute value, but not of a real unknown, a cardinality, an area, a rounded value, a sum with dots."""

CHANGE = re.compile(r"[a-z]'+|\\(?:Delta|delta|nabla|partial|text\{\s*d\s*\})\s*(?:[A-Za-z]|\\[a-z]+)")
"""A derivative or difference of an unknown, which a number does not answer."""

WORDS = re.compile(r"(?:\\text\{[A-Za-z' .,:-]+\}|[A-Za-z]{4,}(?: [A-Za-z]+)*)[^0-9]*")
HEDGES = re.compile(
    r"\b(?!(?-i:(?!NOT)[A-Z]{2,3}\b))(?:at (?:most|least)|(?:upp|low)er limit|(?:square|cube) (?:root|of)"
    rf"|of the (?:answer|result|solution)|{'|'.join((*DENIALS, *CHANGES))})\b"
    r"|\b(?:less|more|greater|over|under|above|below|beyond|up to)\W*$",
    re.IGNORECASE,
)
"""Words that turn a name into something else; two or three capitals are points."""

NEXT = re.compile(r"[-+\d./]+\s+(?:\\\\\s*)?[A-Za-z]")
"""The value of one name, and the next name: 8 y in x = 8 y = 7."""

PARENTHESES = re.compile(r"\([^()]*\)")
COMMAND = re.compile(r"\\[A-Za-z]+")
GREEK_LETTER = re.compile(GREEK)
UNKNOWN = re.compile(LETTER)
CONSTANTS = {"e", "i"}
ARGUMENT = re.compile(rf"({LETTER})\(({LETTER})\)")
"""A function of one letter: f(x), x(t)."""

PARAMETERS = {"k", "l", "m", "n"}
"""Letters for an arbitrary integer in the solutions of trigonometric equations."""


def chain(text: str) -> list[tuple[str, str]]:
    r"""Split a text at "=" and \approx outside all brackets into pairs of the sign before a side, and the side.

    The result has one side if there are other relations, or if a side is empty.
    """
    sides = [
        (APPROXIMATELY if number else "=" if part else "", side)
        for part, whole in enumerate(split(text, "="))
        for number, side in enumerate(split(whole, APPROXIMATELY))
    ]
    if any(not side or RELATION.search(side) for _, side in sides):
        return [("", text)]
    return sides


def split_names(text: str) -> tuple[tuple[str, ...], str]:
    """Separate the names before a value: "x = y = 3 + 4 = 7" gives x and y, and "3 + 4 = 7"."""
    if member := MEMBER.search(text):
        name, rest = text[: member.start()].strip(), text[member.end() :].strip()
        single = (SIMPLE.fullmatch(name) or TUPLE.fullmatch(name)) and not MEMBER.search(rest)
        return ((tight(name),), rest) if single else ((), text)
    sides = chain(text)
    if any(";" in side or len(split(side, ",")) > 1 or CONJUNCTION.search(side) for _, side in sides[:-1]):
        return (), text
    if SIMPLE.fullmatch(sides[-1][1]) and not (variables(sides[0][1]) or WORDS.fullmatch(sides[0][1])):
        sides = [sides[-1], *sides[:-1]]  # 3 = x
    names: list[str] = []
    if len(sides) > 1 and sides[0][1] in CONSTANTS and sides[1][0] == APPROXIMATELY:
        return (), text  # the number e
    while len(sides) > 1 and is_name(sides[0][1], sides[-1][1], names):
        names.append(tight(sides.pop(0)[1]))
    if not names:
        return (), text
    return tuple(names), "".join(f" {sign} {side}" if place else side for place, (sign, side) in enumerate(sides))


def is_name(side: str, value: str, defined: Sequence[str] = ()) -> bool:
    """Whether a side of a chain names its value. defined: the names before it, A in A = s^2"""
    of_value = variables(value)
    if HEDGES.search(PARENTHESES.sub("", side)) or NEXT.match(side) or (CHANGE.fullmatch(side) and not of_value):
        return False
    if WORDS.fullmatch(side) or TUPLE.fullmatch(side) or MAGNITUDE.fullmatch(side):
        return True
    if match := SIMPLE.fullmatch(side):
        return match[1] is None or variables(match[1].partition("_")[0]).isdisjoint(of_value)
    if (match := ARGUMENT.fullmatch(tight(side))) and match[2] in of_value:
        return True
    addends = _addends(side)
    if len(addends) == 1 and FUNCTION.match(side):
        return True
    if not variables(side).isdisjoint(of_value):
        return False
    if len(addends) == 1 and TRIGONOMETRY.match(side):
        return True
    unknowns = set(map(tight, UNKNOWN.findall(_letters_only(side)))) - CONSTANTS
    if defined:
        return bool(unknowns) and unknowns.isdisjoint(defined) and all(map(variables, addends))
    return len(unknowns) > 1 and all(map(variables, addends)) and len(split(side, "-")) == 1


def is_combined(name: str) -> bool:
    """Whether a name combines letters, so that x^2+y^2 = 25 as a gold answer is an equation and not 25.

    Lengths and the sides of a ratio are not unknowns: AB/CD = 2, a:b = 2.
    """
    if SIMPLE.fullmatch(name) or ARGUMENT.fullmatch(name) or is_special(name) or ":" in name:
        return False
    return bool(re.search(r"[a-z]|(?<![A-Z])[A-Z](?![A-Z])", _letters_only(name)))


def is_special(name: str) -> bool:
    """Whether a name is more than letters and their combinations: f(3), |z|, words. Equations contain none of these."""
    if any(pattern.fullmatch(name) for pattern in (TUPLE, MAGNITUDE, WORDS)):
        return True
    return len(_addends(name)) == 1 and bool(FUNCTION.match(name) or TRIGONOMETRY.match(name))


def _addends(text: str) -> list[str]:
    return [addend for part in split(text, "+") for addend in split(part, "-") if addend]


def variables(text: str) -> set[str]:
    r"""Return the letters that do not stand for a number; commands such as \alpha count as one letter."""
    return {*GREEK_LETTER.findall(text), *re.findall(r"[A-Za-z]", COMMAND.sub("", TEXT.sub("", text)))} - CONSTANTS


def with_argument(gold: tuple[str, ...], answer: tuple[str, ...], value: str) -> tuple[tuple[str, ...], str]:
    """Write the f(t) = 2t of an answer with the letter of the gold answer's f(x)."""
    for one, other in product(map(ARGUMENT.fullmatch, gold), map(ARGUMENT.fullmatch, answer)):
        if one and other and one[1] == other[1] and {one[2], other[2]} & variables(value) == {other[2]}:
            return (one[0],), renamed(value, other[2], one[2])
    return answer, value


def with_parameter(gold: str, answer: str) -> str:
    r"""Write n\pi with the letter of the gold answer's k\pi."""
    one, other = variables(gold), variables(answer)
    if r"\pi" in gold and len(one - other) == len(other - one) == 1 and one ^ other <= PARAMETERS:
        return renamed(answer, *(other - one), *(one - other))
    return answer


def renamed(text: str, letter: str, new: str) -> str:
    """Replace a letter outside commands."""
    pattern = rf"\\[A-Za-z]+|{re.escape(letter)}"
    return re.sub(pattern, lambda match: f"{new} " if match[0] == letter else match[0], text)


def _letters_only(text: str) -> str:
    return COMMAND.sub(lambda match: match[0] if GREEK_LETTER.fullmatch(match[0]) else " ", TEXT.sub("", text))


def tight(name: str) -> str:
    """Remove the spaces of a name that no command needs."""
    return re.sub(r"(\\[A-Za-z]+\s(?=[A-Za-z]))|\s", r"\1", name)
