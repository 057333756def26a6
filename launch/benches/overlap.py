"""Rollouts and learner at the same time against taking turns, each on its share of the machine.

Two runs of the quickstart with the same seed and so many updates, one after the other: the same problems and requests,
though not word for word the same answers, since each run's batches hold versions of another age.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from actors.storage.run_record import RunRecord
from launch.benches.report import Report, Row

UPDATES = 16

SKIPPED = 4
"""First updates, in which buffers fill and kernels are used for the first time."""

LEARNING = ("update", "canary", "sync")
"""What the learner does for an update, in the ledger's words."""


@dataclass(frozen=True)
class Side:
    """Per measured update, seconds: of the whole, of the engines generating, of the learner at work."""

    update: float
    generate: float
    learn: float


def run() -> Report:
    together, in_turns = (measure(staleness) for staleness in (1, 0))
    apart = 60 / max(together.generate, together.learn)
    whole = 60 / (in_turns.generate + in_turns.learn)
    rows = (
        Row(
            "quickstart, overlapped against in turns", "updates_per_minute", 60 / together.update, 60 / in_turns.update
        ),
        Row(
            "quickstart, overlapped against in turns",
            "rollouts_idle",
            *(idle(s.generate, s) for s in (together, in_turns)),
        ),
        Row(
            "quickstart, overlapped against in turns", "learner_idle", *(idle(s.learn, s) for s in (together, in_turns))
        ),
    )
    return Report(
        rows,
        {"updates_per_minute": max(apart, whole), "each on its share": apart, "all work on the whole machine": whole},
        (
            f"{UPDATES - SKIPPED} updates of each after {SKIPPED} that are not measured; idle: share of the time.",
            "The limit is the larger of what the slower of the two reaches on its share and of all work, one after the "
            "other, on the whole machine, with no time lost between.",
        ),
    )


def idle(busy: float, side: Side) -> float:
    return max(1 - busy / side.update, 0.0)


def measure(max_staleness: int) -> Side:
    """One run of the quickstart in a process of its own."""
    with TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "launch/run.py",
            "conf=quickstart",
            f"run.folder={folder}",
            f"learner.max_staleness={max_staleness}",
            f"budget.updates={UPDATES}",
            "budget.minutes=60",
            "eval.problems=0",
            f"checkpoint.every={UPDATES}",
            "dashboard.port=0",
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
        rows = RunRecord(Path(folder) / "quickstart").rows()
    return between(rows[SKIPPED - 1], rows[-1], len(rows) - SKIPPED)


def between(first: dict[str, Any], last: dict[str, Any], updates: int) -> Side:
    """Per update, what passed between two rows of metrics."""

    def passed(*names: str) -> float:
        return sum(last.get(name, 0.0) - first.get(name, 0.0) for name in names) / updates

    return Side(
        update=passed("budget/spent_s"),
        generate=passed("ledger/rollouts/generate"),
        learn=passed(*(f"ledger/learner/{activity}" for activity in LEARNING)),
    )
