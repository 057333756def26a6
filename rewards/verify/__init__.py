r"""Whether a response gives the gold answer.

The answer of a response is the content of its last `\boxed{…}`. Equal text, words and plain integers are settled at
once, and so is a computation where an integer is asked for: copying the question, \boxed{7 + 5}, is no answer to it.
Everything else is compared as mathematics by math-verify, whose algebra can run for ever on a hostile answer: the
deadline belongs to `rewards.pool`, and math-verify's own (SIGALRM, main thread only) stays off.
`python -m rewards.verify` is the same as a command.
"""

import logging
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import math_verify

from actors.messages import Status, Verdict

MAX_ANSWER = 1_000
"""Characters of a boxed answer beyond which it counts as unparsable: far above any real answer, and a bound on what
the parser's backtracking patterns can be fed."""

BOX = "\\boxed"
INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
COMPUTATION = re.compile(
    r"[\d)}\]!]\s*([-+*/×·÷=!]|\\(cdot|times|div|pm|mod)\b)"  # 7 + 5, 24/2, 13 = 12, (3)(4) - 1, 4!
    r"|\d\s+\d|\)\s*\(|\d\s*\("  # 1 9, (3)(4), 3(4)
    r"|\\([dtc]?frac|sqrt|sum|prod|int|lim|gcd|lcm|binom|max|min|log|ln|det|operatorname)"
)
DEGREES = re.compile(r"\^\s*(\\circ|\{\s*\\circ\s*\})")
WORDS = re.compile(r"(?:\\(?:text|textbf|textit|mathrm|mbox)\s*\{)?\(?([A-Za-z]{2,}(?:[ ,-]+[A-Za-z]+)*)\)?\}?")
SYMBOLS = {"pi", "inf", "infty"}
"""Names that stand for a number, though they look like words."""
EXTRACTION = (math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig())

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its timeout is off


def boxed(response: str) -> str | None:
    r"""Content of the last `\boxed{…}`; None if there is none, its braces do not close, or it is over MAX_ANSWER.

    Braces escaped as in `\{1, 2\}` do not count. Linear in the length of the response.
    """
    start = response.rfind(BOX)
    if start < 0:
        return None
    start += len(BOX)
    window = response[start : start + MAX_ANSWER + 2].lstrip()
    if not window.startswith("{"):
        return None
    depth = position = 0
    while position < len(window):
        match window[position]:
            case "\\":
                position += 1
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return window[1:position]
        position += 1
    return None


def plain(answer: str) -> str:
    """An answer without the dollars, full stop and white space around it."""
    return answer.strip().strip("$").rstrip(".").strip()


def settle(gold: str, answer: str) -> Status | None:
    """The status where no algebra is needed, else None. Both are plain."""
    if not answer:
        return Status.UNPARSABLE
    if answer == gold:
        return Status.CORRECT
    if INTEGER.fullmatch(answer) and INTEGER.fullmatch(gold):
        return Status.CORRECT if int(answer) == int(gold) else Status.WRONG
    if INTEGER.fullmatch(gold) and COMPUTATION.search(DEGREES.sub("", answer)):
        return Status.WRONG
    if word := words(gold):
        return Status.CORRECT if words(answer) == word else Status.WRONG
    return None


def words(answer: str) -> str | None:
    """A plain answer that consists of words, in lower case; algebra would take "east" for a product of letters."""
    match = WORDS.fullmatch(answer)
    return None if match is None or match[1] in SYMBOLS else match[1].lower()


def parse(answer: str) -> list[Any]:
    """Readings of a plain answer as sympy expressions; empty if it has none."""
    return math_verify.parse(f"{BOX}{{{answer}}}", EXTRACTION, fallback_mode="no_fallback", parsing_timeout=None)


parse_gold = lru_cache(maxsize=1024)(parse)


def compare(gold: str, answer: str) -> Status:
    """The status of a plain answer by algebra. May take for ever, or the process's memory."""
    expected, given = parse_gold(gold), parse(answer)
    if not expected or not given:
        return Status.UNPARSABLE
    return Status.CORRECT if math_verify.verify(expected, given, timeout_seconds=None) else Status.WRONG


def verify(gold: str, response: str, compare: Callable[[str, str], Status] = compare) -> Verdict:
    """The verdict on one response. `compare` decides what text alone does not; a pool passes its isolated one."""
    start = time.perf_counter()
    extracted = boxed(response)
    expected, answer = plain(gold), plain(extracted or "")
    status = settle(expected, answer) or compare(expected, answer)
    milliseconds = 1e3 * (time.perf_counter() - start)
    return Verdict(float(status is Status.CORRECT), status, extracted, milliseconds)
