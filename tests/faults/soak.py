"""A long run with tiny parts: do memory, files, processes and slots stay flat?

Prints a line now and then, and at the end the slope of memory and open files over the second half of the run, for every
process that lives through it. The end shows that no slot leaks: an engine has two, and waits for a free one before each
version.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

import psutil

from actors.runtime.ray_session import NOTE
from tests.faults.conftest import Run

SAMPLE_S = 2.0
REPORT_EVERY = 20
"""Updates between two lines."""


class Process(NamedTuple):
    """memory: its own, in MiB. files: number of open ones."""

    update: int
    memory: float
    files: int


class Whole(NamedTuple):
    """files: number in the run folder. adapters: published and not deleted. memory: of all processes, in MiB."""

    update: int
    processes: int
    files: int
    adapters: int
    memory: float


def main(runs: Callable[[], AbstractContextManager[Callable[..., Run]]], arguments: Sequence[str]) -> int:
    updates = int(arguments[0]) if arguments else 300
    settings = ("budget.minutes=240", f"budget.updates={updates}", "eval.problems=0", "checkpoint.every=10")
    settings += ("learner.learning_rate=1e-6",)  # a policy that has learned all there is would end the run
    each: dict[psutil.Process, list[Process]] = defaultdict(list)
    names: dict[psutil.Process, str] = {}
    whole: list[Whole] = []
    began = time.monotonic()
    with runs() as begin:
        run = begin("soak", *settings)
        while run.process.poll() is None:
            whole.append(look(run, each, names))
            if whole[-1].update // REPORT_EVERY > (whole[-2].update // REPORT_EVERY if len(whole) > 1 else 0):
                print(f"{time.monotonic() - began:6.0f} s", *(f"{k} {v:.0f}" for k, v in whole[-1]._asdict().items()))
                sys.stdout.flush()
            time.sleep(SAMPLE_S)
        ended = run.end()
        print(f"exit code {ended.code}, {len(ended.rows)} updates; no process and no shared memory left")
    print(f"{'in the second half':<48} {'at half':>12} {'at the end':>12} {'per update':>14}")
    for process, seen in sorted(each.items(), key=lambda item: item[0].pid):
        half = [sample for sample in seen if updates / 2 <= sample.update < updates]
        if len(half) > 3 and half[-1].update > updates * 0.9:
            report(f"{names[process]}, KiB", [(s.update, s.memory * 1024) for s in half])
            report(f"{names[process]}, files", [(s.update, s.files) for s in half])
    later = [sample for sample in whole if updates / 2 <= sample.update < updates]
    for what in Whole._fields[1:]:
        report(what, [(sample.update, getattr(sample, what)) for sample in later])
    print(json.dumps(ended.summary["ledger"]["counts"]))
    return ended.code


def look(run: Run, each: dict[psutil.Process, list[Process]], names: dict[psutil.Process, str]) -> Whole:
    """Measure every process of a run, and the run."""
    update, members, memory = run.updates, run.look(), 0.0
    for process in members:
        try:
            with process.oneshot():
                names[process] = title(process)
                each[process].append(Process(update, process.memory_full_info().uss / 2**20, process.num_fds()))
                memory += each[process][-1].memory
        except psutil.Error:  # it has just ended
            continue
    session = json.loads((run.folder / NOTE).read_text())["temporary"]
    adapters = sum(1 for _ in Path(session).glob("adapters/*"))
    files = sum(len(names) for *_, names in os.walk(run.folder))  # passes over folders that go meanwhile
    return Whole(update, len(members), files, adapters, memory)


def title(process: psutil.Process) -> str:
    """Return a process's name, and the Python file it runs, if any."""
    name, arguments = process.name(), process.cmdline()[1:]
    files = [Path(argument).name for argument in arguments if argument.endswith(".py")]
    return f"{name} {files[0]}" if files else name


def report(what: str, points: list[tuple[float, float]]) -> None:
    """Print first and last value, and the slope of the least-squares line."""
    slope = linear_regression(*zip(*points, strict=True)).slope if len({x for x, _ in points}) > 1 else 0.0
    print(f"{what:<48} {points[0][1]:>12.1f} {points[-1][1]:>12.1f} {slope:>14.4f}", flush=True)
