"""Answers that are Python code, for the verifier and for every generator of reasoning_gym.

    python -m tests.rewards.attack verifier       print the answers and golds that it ran
    python -m tests.rewards.attack generators     print as JSON which generators ran any

It runs in its own process, since an audit hook cannot be removed and the answers leave files behind.
"""

import json
import re
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import reasoning_gym
from reasoning_gym.composite import DatasetSpec
from reasoning_gym.factory import DATASETS

from microbudget_rl.rewards.verify import compare
from microbudget_rl.rewards.verify.algebra import equivalent
from microbudget_rl.rewards.verify.comparison import readable
from microbudget_rl.rewards.verify.text.extraction import BOX, boxed

MARK = "ran_the_answer"
"""Name of a file that the answers make, and of a variable that they use."""

OPEN = f"open('{MARK}', 'w')"
SYSTEM = f"__import__('os').system('touch {MARK}')"
CALLS = (OPEN, SYSTEM)

SHAPES = (
    "{}",
    "({}, 1)",
    "[{}]",
    "[[{}]]",
    "[['Q', {}]]",
    '{{"a": {}}}',
    "\n{}",
    "1\n{}",
    "1; {}",
    "{} + C",
    "2*x**2 + {}",
    "exp({})",
    "sympify({!r})",
    "parse_expr({!r})",
    "lambdify((), {!r})()",
    "Symbol('x').subs(Symbol('x'), {})",
    "f'{{{}}}'",
)
"""Texts around the code, those that sympy parses included."""

PARAMETERS = {"composite": {"datasets": [DatasetSpec("countdown", 1.0, {})]}}
"""Parameters of generators that have no defaults."""

WORD = re.compile(r"[^\s\[\](){},:\"']+")
MOST_WORDS = 200


def answers(gold: str) -> list[str]:
    """Return code by itself, in other shapes and within the right answer, each as it is and as extracted from a box."""
    shaped = [shape.format(call) for shape in SHAPES for call in CALLS]
    within = [
        text for call in CALLS for text in (gold + call, f"{gold}\n{call}", f"{call}\n{gold}", f"{gold} + {call}")
    ]
    instead = [WORD.sub(lambda _: OPEN, gold, count=MOST_WORDS)]
    plain = [MARK, *shaped, *within, *instead]
    return [*plain, *((boxed(f"{BOX}{{{answer}}}") or "").strip("$ ") for answer in plain)]


class Listener:
    """Counts executed code that contains MARK, and files and commands of that name."""

    def __init__(self) -> None:
        self.heard = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            self.heard += MARK in repr((arguments[0].co_names, arguments[0].co_consts))
        elif event in ("open", "os.system", "subprocess.Popen", "import"):
            self.heard += MARK in repr(arguments)


def attack(name: str, listener: Listener) -> dict[str, bool]:
    """Return whether a generator evaluates any of the answers, and whether that makes the file."""
    entries = reasoning_gym.create_dataset(name, seed=0, size=1, **PARAMETERS.get(name, {}))
    entry = entries[0]
    before = listener.heard
    for answer in answers(str(entry["answer"])):
        try:
            entries.score_answer(answer, entry)
        except Exception:
            continue  # a worker survives it
    touched = Path(MARK).exists()
    Path(MARK).unlink(missing_ok=True)
    return {"evaluates": listener.heard > before, "touches": touched}


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


def attack_verifier() -> None:
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


def main() -> int:
    if sys.argv[1] == "verifier":
        attack_verifier()
    else:
        listener = Listener()
        found = {name: attack(name, listener) for name in sorted(DATASETS)}
        print(f"\n{json.dumps(found)}")  # answers may have printed, too
    return 0


if __name__ == "__main__":
    sys.exit(main())
