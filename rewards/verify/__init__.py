r"""Judges whether a response gives the gold answer.

The answer of a response is the content of its last `\boxed{…}`; with `after_thinking`, of what follows the last
`</think>`. Gold and answer are brought into one spelling (`answers`), taken apart by their shape (`shapes`), and
compared as numbers with units (`numbers`, `units`), as words, and by math-verify for what is left (`algebra`):

- **One answer.** Several values where one is asked for are wrong, whatever joins them; so is a chain, 7 + 5 = 12.
- **Written out.** Where the gold answer is a number written out, the answer has to be one: an integer, decimal,
  fraction, mixed number or power of ten. Copying the question, \boxed{7 + 5} or \boxed{2^{10}}, is no answer to it; nor
  is a fraction where an integer is asked for. Other golds accept every equal expression, so that a question that only
  asks to rewrite something can be answered by copying it; but it has to be one in the same variables.
- **Exact.** Decimals count as they stand. One of six significant digits or more may stand for a fraction or root that
  no decimal equals.
- **Units** may be left out or added, are not converted, and must not contradict: 5 cm is not 5 m. A percent sign on one
  side only is a unit or a hundredth. A numeral's base may be left out.
- **Order.** Parentheses and brackets mean it, braces and bare lists do not: a set is no tuple. A bare list may stand
  for a tuple in its order. [ and ( differ. Simple inequalities are intervals.
- **Names.** x = 3 is 3, and not y = 3. Words are compared as words, without case; a choice (A) as A.
- **Thousands** are grouped by comma, {,} or \, in threes without a space; with a space a comma makes a list.

An answer that is no mathematics, is over 1,000 characters, holds control characters or numbers beyond all proportion
(9^{9^{9}}) is unparsable. Algebra can run for ever on what remains: the deadline belongs to `rewards.pool`, and
math-verify's own (SIGALRM, main thread only) stays off. `python -m rewards.verify` is the same as a command.
"""

import time
from collections.abc import Callable

from actors.messages import Status, Verdict
from rewards.verify.answers import after_thought, boxed, plain
from rewards.verify.comparison import compare, decide_by_text


def extract(response: str, after_thinking: bool = False) -> str | None:
    """Return the answer of a response as it stands there; None if it has none."""
    return boxed(after_thought(response) if after_thinking else response)


def decide(gold: str, answer: str | None, compare: Callable[[str, str], Status] = compare) -> Status:
    """Return the status of an answer. `compare` decides what text alone does not; a pool passes its isolated one."""
    expected, given = plain(gold), plain(answer or "")
    return decide_by_text(expected, given) or compare(expected, given)


def verdict(status: Status, answer: str | None, started: float) -> Verdict:
    """Make the verdict on an answer judged since `started`, a time.perf_counter."""
    return Verdict(float(status is Status.CORRECT), status, answer, 1e3 * (time.perf_counter() - started))


def verify(gold: str, response: str, after_thinking: bool = False) -> Verdict:
    """Judge one response in this process, without a deadline."""
    start = time.perf_counter()
    answer = extract(response, after_thinking)
    return verdict(decide(gold, answer), answer, start)
