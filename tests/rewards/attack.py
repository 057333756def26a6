"""`python -m tests.rewards.attack`: give the verifier answers and golds that are Python code, and print those it ran.

It runs in its own process, since an audit hook cannot be removed.
"""

import signal
import sys
from functools import partial
from types import FrameType

from rewards.verify import compare
from rewards.verify.algebra import equivalent
from rewards.verify.comparison import readable
from tests.rewards.problems.attack import CALLS, MARK, SHAPES, Listener

GOLDS = (r"\sqrt{2}", r"(1, \sqrt{2})", r"x = \sqrt{2}")
AROUND = (
    r"\text{{{}}}",
    r"\operatorname{{{}}}",
    r"\sqrt{{{}}}",
    r"\frac{{{}}}{{2}}",
    r"\{{{}, 2\}}",
    "({}, 2)",
    "x = {}",
    "f({})",
    "x_{{{}}}",
    r"\begin{{pmatrix}}{}\end{{pmatrix}}",
)
PATIENCE_S = 2.0
"""Seconds for one comparison; some never end."""


class Late(BaseException):
    pass


def late(number: int, frame: FrameType | None) -> None:
    raise Late


def main() -> int:
    signal.signal(signal.SIGALRM, late)
    code = [MARK, *(shape.format(call) for shape in SHAPES for call in CALLS)]
    within = [around.format(call) for around in AROUND for call in CALLS]
    listener = Listener()
    for text in (*code, *within):
        before = listener.heard
        pairs = [(gold, text) for gold in GOLDS] + [(text, r"\sqrt{2}"), (text, text)]
        calls = [partial(compared, *pair) for pair in pairs for compared in (compare, equivalent)]
        for work in (*calls, partial(readable, text)):
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
            try:
                work()
            except (Late, Exception):
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if listener.heard > before:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
