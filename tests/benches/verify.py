"""Compares verdicts per second of the verifier pool with a bare math-verify loop, and with answers that hang it.

The mix is 80 % plain numbers, 19 % LaTeX and 1 % LaTeX or answers that hang; few of them repeat. The bare loop parses
and verifies in its main thread, parses each gold answer once and has its own timeouts on. It cannot be measured with
hangs, because an integer power ignores its alarm. Both have one core, and the pool one worker.

It also counts the verdicts that are wrong on the whole responses of `tests/rewards/cases`, each way.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import math_verify

from microbudget_rl.actors.messages import Status
from microbudget_rl.conf.schema import RewardConfig
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.verify import verify
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.benches.results import Result, Row, measured
from tests.rewards.corpus import read

VERDICTS = 3000
CONFIGS = (math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig())
FILES = ("heldout", "classes", "classes_heldout")
REASONING = "<think>\nLet me see. We add what is given and simplify, and check the result once more.\n</think>\n"

Answer = tuple[str, str]
"""A gold answer, with an answer or a whole response."""


def mix(count: int, hangs: str, seed: int = 0) -> list[Answer]:
    """Return pairs to verify. hangs: none, or algebra that looks harmless."""
    rng = random.Random(seed)
    kinds = rng.choices([easy, latex, latex if hangs == "none" else algebra], [80, 19, 1], k=count)
    answers = (kind(rng) for kind in kinds)
    return [(gold, f"{REASONING}The answer is \\boxed{{{answer}}}.") for gold, answer in answers]


def easy(rng: random.Random) -> Answer:
    gold = rng.randrange(-999, 9999)
    right = rng.random() < 0.5
    number = gold if right else rng.randrange(9999)
    ways = [f"{number}", f"{number}", f"{number:,}", f"x = {number}", rf"{number} \text{{ cm}}", f"{number}.0"]
    return str(gold), rng.choice(ways)


def latex(rng: random.Random) -> Answer:
    a, b, c = (rng.randrange(2, 60) for _ in range(3))
    gold, right, wrong = rng.choice(
        [
            (rf"\frac{{{a}}}{{{b * a + 1}}}", rf"\dfrac{{{2 * a}}}{{{2 * b * a + 2}}}", rf"\frac{{{a}}}{{{b}}}"),
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"{a}\sqrt{{{b + 1}}}"),
            (f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})", f"(x+{a})(x+{b + 1})"),
            (rf"[{a}, \infty)", rf"x \geq {a}", rf"({a}, \infty)"),
            (rf"\frac{{{a}}}{{{b}}}, {c}", rf"{c}, \frac{{{a}}}{{{b}}}", rf"{c + 1}, \frac{{{a}}}{{{b}}}"),
        ]
    )
    return gold, right if rng.random() < 0.5 else wrong


def algebra(rng: random.Random) -> Answer:
    return "x^2+2x+1", r"\sin(" * rng.randrange(44, 52) + f"x+{rng.randrange(10**6)}" + ")" * 52


@lru_cache(maxsize=4096)
def parse_gold(gold: str) -> Any:
    return math_verify.parse(rf"\boxed{{{gold}}}", CONFIGS)


def bare(gold: str, response: str) -> object:
    return math_verify.verify(parse_gold(gold), math_verify.parse(response, CONFIGS))


def speed(verify: Callable[[str, str], object], hangs: str) -> float:
    """Return verdicts per second, after a warm-up."""
    for question in mix(100, "none", seed=1):
        verify(*question)
    questions, start = mix(VERDICTS, hangs), time.perf_counter()
    for question in questions:
        verify(*question)
    return VERDICTS / (time.perf_counter() - start)


def measure_here(side: str, hangs: str) -> float:
    if side == "bare":
        return speed(bare, hangs)
    with VerifierPool(RewardFunction(RewardConfig()), workers=1) as pool:
        return speed(pool.verify, hangs)


def errors(file: str, status: Status) -> Row:
    """Count the responses of one true status that get the opposite one."""
    cases = [case for topic in read(file).values() for case in topic if case.status is status]
    right = status is Status.CORRECT
    ours = sum((verify(case.gold, case.answer).status is Status.CORRECT) != right for case in cases)
    alone = sum(bool(bare(case.gold, case.answer)) != right for case in cases)
    return Row(f"{file}, {len(cases)} {status}", "refused" if right else "accepted", ours, alone)


def run() -> Result:
    ours, alone, hung = (
        measured(__name__, *each) for each in (("ours", "none"), ("bare", "none"), ("ours", "algebra"))
    )
    rows = (
        Row("no hangs, bare loop", "verdicts_per_second", ours, alone),
        Row("1 % hanging algebra, ours without", "verdicts_per_second", hung, ours),
        *(errors(file, status) for file in FILES for status in (Status.CORRECT, Status.WRONG)),
    )
    note = f"Each case ends with its baseline. Hanging algebra costs {RewardConfig().deadline_s:g} s each."
    return Result(rows, {}, (note,))


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    print(json.dumps(measure_here(*sys.argv[1:])))
