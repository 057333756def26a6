r"""Finds the answer in a response: the content of its last `\boxed{…}`, or of the last few that form one list."""

import re

MAX_ANSWER = 1_000
"""Longest answer, characters: far longer than any real one, and a bound for the parsers."""

MOST_BOXES = 8
"""Largest number of boxes that are read as one list; with more, the last one counts."""

MAX_BETWEEN = 60
"""Largest number of characters between two boxes of one list."""

BOX = "\\boxed"
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""A brace, or an escaped character."""

NAME = r"(?:[A-Za-z](?:_\w|_\{\w+\}|')?|\\[a-z]+)"
SPACE = r"(?:[\s$]|\\q?quad|\\[ ,;:])*"
BETWEEN = re.compile(
    rf"{SPACE}(?:\\[)\]])?{SPACE}(?:,|;|,?\s*(?:and|or|\\text\{{\s*,?\s*(?:for [^{{}}]*)?(?:and|or)\s*\}}))"
    rf"{SPACE}(?:\\[(\[])?{SPACE}(?:({NAME})\s*=\s*)?"
)
"""Separator of two boxes of a list: a comma, "and" or "or", perhaps with the name of the next value."""

NAME_BEFORE = re.compile(rf"(?<![\\A-Za-z])({NAME})\s*=\s*$")


def boxed(response: str) -> str | None:
    r"""Return the content of the last `\boxed{…}`; None without one, with open braces, or over MAX_ANSWER.

    Braces escaped as in `\{1, 2\}` do not count. Linear in the length of the response.
    """
    start = response.rfind(BOX)
    return None if start < 0 else _content(response, start)[0]


def extract(response: str, after_thinking: bool = False) -> str | None:
    r"""Return the answer in a response as it is written there; None if there is none.

    It is `boxed`, or "x=1, x=2" for `$x=\boxed{1}$ and $x=\boxed{2}$`.
    after_thinking: whether it counts only after the last `</think>`
    """
    if after_thinking:
        _, closed, response = response.rpartition("</think>")
        response = response if closed else ""
    if (last := boxed(response)) is None:
        return None
    values, start = [last], response.rfind(BOX)
    while (earlier := response.rfind(BOX, max(0, start - MAX_ANSWER), start)) >= 0 and len(values) <= MOST_BOXES:
        content, end = _content(response, earlier)
        match = BETWEEN.fullmatch(response, end, start) if 0 < start - end <= MAX_BETWEEN else None
        if content is None or match is None:
            break
        values[-1] = f"{match[1]}={values[-1]}" if match[1] else values[-1]
        values.append(content)
        start = earlier
    if len(values) == 1 or len(values) > MOST_BOXES:
        return last
    if name := NAME_BEFORE.search(response[max(0, start - MAX_BETWEEN) : start]):
        values[-1] = f"{name[1]}={values[-1]}"
    return ", ".join(dict.fromkeys(reversed(values)))


def _content(response: str, start: int) -> tuple[str | None, int]:
    """Return the content of the box at `start` and the index after it."""
    start += len(BOX)
    window = response[start : start + MAX_ANSWER + 2]
    opening = len(window) - len(window.lstrip())
    if not window.startswith("{", opening):
        return None, start
    depth = 0
    for token in BRACE.finditer(window):
        depth += (token[0] == "{") - (token[0] == "}")
        if depth == 0:
            return window[opening + 1 : token.start()], start + token.end()
    return None, start
