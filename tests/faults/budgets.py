"""Real tiny runs of several budgets: is each spent, and not more?

Prints a line per budget, and the number of broken ones: overrun above 2 s, unused time above the larger of 5 % and 5 s,
or no final checkpoint or evaluation.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from tests.faults.conftest import Run, latest

SECONDS = (60, 75, 90, 105, 120, 140, 160, 180)
OVERRUN_S = 2.0
UNUSED_S, UNUSED_SHARE = 5.0, 0.05


def main(runs: Callable[[], AbstractContextManager[Callable[..., Run]]], arguments: Sequence[str]) -> int:
    budgets, broken = [int(argument) for argument in arguments] or SECONDS, 0
    print(
        f"{'budget':>7} {'spent':>7} {'process':>8} {'overrun':>8} {'unused':>7} {'updates':>8}  checkpoint  evaluation"
    )
    with runs() as begin:
        for budget in budgets:
            began = time.monotonic()
            run = begin(f"budget-{budget}", f"budget.minutes={budget / 60}")
            ended = run.end()
            process = time.monotonic() - began
            summary = ended.summary
            left = budget - summary["spent_s"]
            saved = latest(run.folder) == summary["updates"] > 0
            evaluated = summary["eval"]["final"] is not None
            kept = (
                -OVERRUN_S <= left <= max(UNUSED_S, UNUSED_SHARE * budget) and saved and evaluated and ended.code == 0
            )
            broken += not kept
            print(
                f"{budget:>5} s {summary['spent_s']:>5.1f} s {process:>6.1f} s {max(-left, 0.0):>6.1f} s "
                f"{max(left, 0.0):>5.1f} s {summary['updates']:>8}  {'there' if saved else 'MISSING':<10}  "
                f"{'there' if evaluated else 'MISSING'}{'' if kept else '  BROKEN: ' + summary['reason']}",
                flush=True,
            )
    print(f"{len(budgets)} budgets, {broken} broken")
    return 1 if broken else 0
