"""Compares verdicts per second of the verifier pool with a bare math-verify loop, and with answers that hang it.

The mix is 80 % plain numbers, 19 % LaTeX and 1 % LaTeX or answers that hang; few of them repeat. The bare loop parses
and verifies in its main thread, parses each gold answer once and has its own timeouts on. It cannot be measured with
hangs, because an integer power ignores its alarm. Every process is bound to as many cores as it has workers.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from statistics import quantiles
from typing import Any, NamedTuple

import math_verify

from conf.schema import RewardConfig
from rewards.pool import VerifierPool
from rewards.reward import RewardFunction
from tests.benches.results import Result, Row, measured

VERDICTS = 3000
DEADLINE_S = RewardConfig().deadline_s
CONFIGS = (math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig())
REASONING = "<think>\nLet me see. We add what is given and simplify, and check the result once more.\n</think>\n"

Answer = tuple[str, str]
"""Gold and given."""


class Question(NamedTuple):
    gold: str
    response: str


def mix(count: int, hangs: str, seed: int = 0) -> list[Question]:
    """Return questions. hangs: none, huge (numbers in the style of policies) or algebra (which looks harmless)."""
    rng = random.Random(seed)
    makers = {"none": latex, "huge": huge, "algebra": algebra}
    kinds = rng.choices([easy, latex, makers[hangs]], [80, 19, 1], k=count)
    answers = (kind(rng) for kind in kinds)
    return [Question(gold, f"{REASONING}The answer is \\boxed{{{answer}}}.") for gold, answer in answers]


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
            (rf"{a}\pi + {b}", rf"{b} + {a}\pi", rf"{b}\pi + {a + 1}"),
            (f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})", f"(x+{a})(x+{b + 1})"),
            (rf"({a}, \sqrt{{{b}}})", rf"\left({a}, \frac{{{b}}}{{\sqrt{{{b}}}}}\right)", rf"(\sqrt{{{b}}}, {a})"),
            (rf"[{a}, \infty)", rf"x \geq {a}", rf"({a}, \infty)"),
            (rf"\frac{{{a}}}{{{b}}}, {c}", rf"{c}, \frac{{{a}}}{{{b}}}", rf"{c + 1}, \frac{{{a}}}{{{b}}}"),
        ]
    )
    return gold, right if rng.random() < 0.5 else wrong


def huge(rng: random.Random) -> Answer:
    n = rng.randrange(100, 10**6)
    answer = rng.choice([f"9^{{9^{{9^{{{n}}}}}}}", f"{n}^{{{n}^{{{n}}}}}", f"({n}!)!", f"2^{{10000000{n}}}"])
    return (str(n) if rng.random() < 0.8 else rf"\sqrt{{{n}}}"), answer


def algebra(rng: random.Random) -> Answer:
    return "x^2+2x+1", r"\sin(" * rng.randrange(44, 52) + f"x+{rng.randrange(10**6)}" + ")" * 52


@lru_cache(maxsize=4096)
def parse_gold(gold: str) -> Any:
    return math_verify.parse(rf"\boxed{{{gold}}}", CONFIGS)


def bare(question: Question) -> bool:
    return math_verify.verify(parse_gold(question.gold), math_verify.parse(question.response, CONFIGS))


def bare_loop(questions: Sequence[Question]) -> list[float]:
    """Return the milliseconds of each verdict."""
    times = []
    for question in questions:
        start = time.perf_counter()
        bare(question)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def in_bare_loops(questions: list[Question], workers: int) -> list[float]:
    with get_context("spawn").Pool(workers) as pool:
        pool.map(bare_loop, [questions[:20]] * workers, chunksize=1)
        parts = [questions[number::workers] for number in range(workers)]
        return timed(lambda: [ms for times in pool.map(bare_loop, parts, chunksize=1) for ms in times])


def in_pool(questions: list[Question], workers: int) -> list[float]:
    with VerifierPool(RewardFunction(RewardConfig()), workers) as pool, ThreadPoolExecutor(workers) as threads:
        list(threads.map(pool.verify, *zip(*mix(100, "none", seed=1), strict=True)))
        golds, responses = zip(*questions, strict=True)
        return timed(lambda: [verdict.milliseconds for verdict in threads.map(pool.verify, golds, responses)])


def timed(work: Callable[[], list[float]]) -> list[float]:
    """Return the seconds of `work`, then the milliseconds that it returned."""
    start = time.perf_counter()
    times = work()
    return [time.perf_counter() - start, *times]


SIDES = {"ours": in_pool, "bare": in_bare_loops}


def measure(side: str, hangs: str, workers: int) -> list[float]:
    """Return a side's times from a process of its own."""
    found: list[float] = measured(__name__, side, hangs, str(workers), str(VERDICTS))
    return found


def speed(found: list[float]) -> float:
    return (len(found) - 1) / found[0]


def run() -> Result:
    rows: list[Row] = []
    for workers in range(1, min(2, len(os.sched_getaffinity(0))) + 1):
        on = f"{workers} worker{'s' * (workers > 1)}"
        case = f"{on}, no hangs, bare loop"
        ours, bare_one = measure("ours", "none", workers), measure("bare", "none", workers)
        rows.append(Row(case, "verdicts_per_second", speed(ours), speed(bare_one)))
        for which in (50, 99):
            figures = (quantiles(found[1:], n=100)[which - 1] for found in (ours, bare_one))
            rows.append(Row(case, f"p{which}_ms", *figures))
        for hangs, named in (("huge", "huge numbers"), ("algebra", "hanging algebra")):
            hung = speed(measure("ours", hangs, workers))
            rows.append(Row(f"{on}, 1 % {named}, ours without", "verdicts_per_second", hung, speed(ours)))
    return Result(
        tuple(rows),
        {},
        (
            f"Each case ends with its baseline. Deadline {DEADLINE_S:g} s. 80 % plain numbers, 19 % LaTeX.",
            "Huge numbers are recognized at once; hanging algebra costs its deadline.",
        ),
    )


def main(side: str, hangs: str, workers: str, count: str) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(workers)])
    print(json.dumps(SIDES[side](mix(int(count), hangs), int(workers))))


if __name__ == "__main__":
    main(*sys.argv[1:])
