r"""Verifies whether a response gives the gold answer. docs/reference/grading.md has the rules, with examples.

`text` finds the answer in a response and normalizes its spelling and that of the gold answer. `shapes` takes both
apart, with `names`. `comparison` matches their parts: it decides single values by `numbers` and `units`, and leaves the
rest to math-verify (`algebra`).

An answer is never evaluated as code. Comparing text takes microseconds. Algebra may run for ever: `rewards.pool` has
the deadline, and math-verify's own (SIGALRM, main thread only) stays off.
"""

import time
from collections.abc import Callable

from microbudget_rl.actors.messages import Status, Verdict
from microbudget_rl.rewards.verify.comparison import compare, decide_by_text
from microbudget_rl.rewards.verify.text.extraction import extract
from microbudget_rl.rewards.verify.text.spelling import plain


def decide(gold: str, answer: str | None, compare: Callable[[str, str], Status] = compare) -> Status:
    """Return the status of an answer. `compare` decides cases that text cannot; a pool passes its isolated one."""
    expected, given = plain(gold), plain(answer or "")
    return decide_by_text(expected, given) or compare(expected, given)


def verdict(status: Status, answer: str | None, started: float) -> Verdict:
    """Return the verdict on an answer. started: time.perf_counter when verification began."""
    return Verdict(float(status is Status.CORRECT), status, answer, 1e3 * (time.perf_counter() - started))


def verify(gold: str, response: str, after_thinking: bool = False) -> Verdict:
    """Verify one response in this process, without a deadline."""
    start = time.perf_counter()
    answer = extract(response, after_thinking)
    return verdict(decide(gold, answer), answer, start)
