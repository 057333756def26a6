r"""Judges whether a response gives the gold answer. The rules, with examples, are in docs/reference/grading.md.

`text` finds the answer of a response, and brings it and the gold answer into one spelling. `shapes` takes both apart,
with `intervals` and `names`, and `comparison` matches their parts: `scalars` decides single values by `numbers` and
`units`, and leaves the rest to math-verify (`algebra`).

An answer is never evaluated as code. Text is settled within microseconds; algebra can run for ever on what remains: the
deadline belongs to `rewards.pool`, and math-verify's own (SIGALRM, main thread only) stays off. `python -m
rewards.verify` is the same as a command.
"""

import time
from collections.abc import Callable

from actors.messages import Status, Verdict
from rewards.verify.comparison import compare, decide_by_text
from rewards.verify.text.boxes import after_thought, given
from rewards.verify.text.spelling import plain


def extract(response: str, after_thinking: bool = False) -> str | None:
    """Return the answer of a response as it stands there; None if it has none."""
    return given(after_thought(response) if after_thinking else response)


def decide(gold: str, answer: str | None, compare: Callable[[str, str], Status] = compare) -> Status:
    """Return the status of an answer. `compare` decides what text alone does not; a pool passes its isolated one."""
    expected, found = plain(gold), plain(answer or "")
    return decide_by_text(expected, found) or compare(expected, found)


def verdict(status: Status, answer: str | None, started: float) -> Verdict:
    """Make the verdict on an answer judged since `started`, a time.perf_counter."""
    return Verdict(float(status is Status.CORRECT), status, answer, 1e3 * (time.perf_counter() - started))


def verify(gold: str, response: str, after_thinking: bool = False) -> Verdict:
    """Judge one response in this process, without a deadline."""
    start = time.perf_counter()
    answer = extract(response, after_thinking)
    return verdict(decide(gold, answer), answer, start)
