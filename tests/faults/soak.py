"""A long run with tiny parts: do memory, files, processes and slots stay flat?

Prints a line now and then, and at the end the slope of each figure over the second half of the run. The end shows that
no slot leaks: an engine has two, and waits for a free one before each version.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

import psutil

from microbudget_rl.actors.runtime.ray_session import NOTE
from tests.faults.conftest import Run

SAMPLE_S = 2.0
REPORT_EVERY = 20
"""Updates between two lines."""


class Figures(NamedTuple):
    """memory: of all processes, without what they share, in MiB. handles: their open files. files: number in the run
    folder. adapters: published and not deleted.
    """

    update: int
    processes: int
    memory: float
    handles: int
    files: int
    adapters: int


def main(runs: Callable[[], AbstractContextManager[Callable[..., Run]]], arguments: Sequence[str]) -> int:
    updates = int(arguments[0]) if arguments else 300
    settings = ("budget.minutes=240", f"budget.updates={updates}", "eval.problems=0", "checkpoint.every=10")
    settings += ("learner.learning_rate=1e-6",)  # a policy that has learned all there is would end the run
    seen: list[Figures] = []
    with runs() as begin:
        run, told = begin("soak", *settings), 0
        while run.process.poll() is None:
            seen.append(look(run))
            if seen[-1].update >= told + REPORT_EVERY:
                told = seen[-1].update
                print(*(f"{name} {value:.0f}" for name, value in seen[-1]._asdict().items()), flush=True)
            time.sleep(SAMPLE_S)
        ended = run.end()
        print(f"exit code {ended.code}, {len(ended.rows)} updates; no process and no shared memory left")
    later = [figures for figures in seen if updates / 2 <= figures.update < updates]
    print(f"{'in the second half':<20} {'at half':>12} {'at the end':>12} {'per update':>14}")
    for place, name in enumerate(Figures._fields[1:], start=1):
        values = [float(figures[place]) for figures in later]
        slope = linear_regression([figures.update for figures in later], values).slope
        print(f"{name:<20} {values[0]:>12.1f} {values[-1]:>12.1f} {slope:>14.4f}")
    print(json.dumps(ended.summary["ledger"]["counts"]))
    return ended.code


def look(run: Run) -> Figures:
    """Measure a run."""
    update, members, memory, handles = run.updates, run.look(), 0.0, 0
    for process in members:
        try:
            memory, handles = memory + process.memory_full_info().uss / 2**20, handles + process.num_fds()
        except psutil.Error:  # it has just ended
            continue
    session = json.loads((run.folder / NOTE).read_text())["temporary"]
    adapters = sum(1 for _ in Path(session).glob("adapters/*"))
    files = sum(len(names) for *_, names in os.walk(run.folder))  # passes over folders that go meanwhile
    return Figures(update, len(members), memory, handles, files, adapters)
