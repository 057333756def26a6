"""`python -m tests.faults.soak [updates]`: a long run with tiny parts; do memory, files, processes and slots stay flat?

Prints, for every process that lives through the second half of the run, the slope of its memory and open files over
that half, and what is left when the run has ended.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

from tests.e2e.conftest import boxing_model, start
from tests.faults.conftest import Run

SAMPLE_S = 2.0


class Folders:
    """What the fixtures of the end-to-end tests need of pytest."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="soak-"))

    def mktemp(self, name: str) -> Path:
        (self.root / name).mkdir()
        return self.root / name


def main(updates: int) -> int:
    folders = Folders()
    model = boxing_model._get_wrapped_function()(folders)
    launch = start._get_wrapped_function()(model, folders)
    settings = ("budget.minutes=120", f"budget.updates={updates}", "eval.problems=0", "checkpoint.every=10")
    run = Run(launch("soak", *settings), launch.folder / "soak")
    seen: dict[psutil.Process, list[tuple[int, float, int]]] = defaultdict(list)
    names: dict[psutil.Process, str] = {}
    counts: list[tuple[int, int, int]] = []
    while run.process.poll() is None:
        update = run.updates
        for process in [*run.look(), psutil.Process(run.process.pid)]:
            try:
                with process.oneshot():
                    names[process] = process.name()
                    seen[process].append((update, process.memory_full_info().uss / 2**20, process.num_fds()))
            except psutil.Error:
                continue
        counts.append((update, len(run.look()), sum(1 for _ in run.folder.rglob("*"))))
        time.sleep(SAMPLE_S)
    ended = run.end()
    print(ended.output.splitlines()[-2:])
    print(f"{'process':<34} {'MiB at half':>12} {'at the end':>12} {'KiB an update':>14} {'files an update':>16}")
    for process, samples in sorted(seen.items(), key=lambda item: item[0].pid):
        half = [sample for sample in samples if sample[0] >= updates / 2]
        if len(half) > 3 and half[-1][0] > updates * 0.9:
            memory = slope([(u, m) for u, m, _ in half]) * 1024
            files = slope([(u, f) for u, _, f in half])
            print(f"{names[process]:<34} {half[0][1]:>12.1f} {half[-1][1]:>12.1f} {memory:>14.2f} {files:>16.4f}")
    later = [count for count in counts if count[0] >= updates / 2]
    for what, column in (("processes", 1), ("files of the run folder", 2)):
        values = [count[column] for count in later]
        line = slope([(count[0], count[column]) for count in later])
        print(f"{what}: {values[0]} at half, {values[-1]} at the end, {line:.4f} an update")
    rows = ended.rows
    print(f"updates: {len(rows)}; adapters left: {[path.name for path in (run.folder / 'adapters').iterdir()]}")
    print(json.dumps(ended.summary["ledger"]["counts"]))
    return ended.code


def slope(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line through (x, y)."""
    n = len(points)
    x, y = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    spread = sum((p[0] - x) ** 2 for p in points)
    return sum((p[0] - x) * (p[1] - y) for p in points) / spread if spread else 0.0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
