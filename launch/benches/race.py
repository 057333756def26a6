"""Ten minutes by the clock on the quickstart's own task, ours and TRL's GRPOTrainer: what the adapters of the fifth and
of the tenth minute solve of the held-out problems.

Both sides get the same model, problems, prompts, verdicts, adapter, batch and rate, which falls with the time. The
clock starts with the process. Ours also evaluates the base model and its last adapter within the time, TRL does not.
The adapters are evaluated afterwards, all in the same way.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from actors.storage.checkpoints import version_of
from actors.storage.evaluation_folder import EvaluationFolder
from actors.storage.run_record import RunRecord
from launch.benches import peers
from launch.benches.learner import matmul_limit
from launch.benches.processes import RUN, measured
from launch.benches.table import Result, Row

MINUTES = (5, 10)
SEEDS = (0, 1, 2)

SAMPLES = 8
"""Of each held-out problem."""

CHECKPOINTS = 4
"""Updates between those of ours: what it learns after the last one before the fifth minute does not count there."""

KEPT = 60
"""Checkpoints of ours, 8 GB: those of 240 updates, of which two cores make about a hundred."""

Side = dict[int, dict[str, float]]
"""What one side has reached by each minute: updates, and pass@1 on the held-out problems."""


def run() -> Result:
    found = {"ours": list[Side](), "TRL": list[Side]()}
    for seed in SEEDS:
        for name, side in (("TRL", theirs), ("ours", ours)):
            with TemporaryDirectory() as folder:
                found[name].append(reached := side(Path(folder), seed))
            print(f"{name}, seed {seed}: {json.dumps(reached)}", flush=True)
    rows = (
        Row(f"seed {seed}, minute {minute}", metric, here[minute][metric], there[minute][metric])
        for seed, here, there in zip(SEEDS, found["ours"], found["TRL"], strict=True)
        for minute in MINUTES
        for metric in ("pass@1", "updates")
    )
    means = (
        f"Minute {minute}: mean pass@1 {fmean(side[minute]['pass@1'] for side in found['ours']):.3f}, "
        f"TRL {fmean(side[minute]['pass@1'] for side in found['TRL']):.3f}."
        for minute in MINUTES
    )
    return Result(tuple(rows), matmul_limit(), (f"{peers.TRL}; start-up counts on both sides.", *means))


def ours(folder: Path, seed: int) -> Side:
    """Carry out the quickstart."""
    settings = {
        "conf": "quickstart",
        "run.name": "run",
        "run.folder": folder,
        "run.seed": seed,
        "budget.minutes": MINUTES[-1],
        "checkpoint.every": CHECKPOINTS,
        "checkpoint.keep_last": KEPT,
        "dashboard.port": 0,
    }
    carry_out("run.py", settings)
    reached = {}
    for minute in MINUTES:
        done = [row for row in RunRecord(folder / "run").rows() if row["budget/spent_s"] <= 60 * minute]
        found = (folder / "run/checkpoints").glob("update-*")
        saved = max((each for each in found if version_of(each) <= len(done)), key=version_of, default=None)
        if saved is None:
            raise RuntimeError(f"fewer than {CHECKPOINTS} updates by minute {minute}: this machine is too slow to race")
        adapter = folder / f"after-{minute}"
        shutil.copytree(saved / "adapter", adapter)  # one of a run would be evaluated as its only one
        reached[minute] = {"updates": float(version_of(saved)), "pass@1": solved(folder, adapter)}
    return reached


def theirs(folder: Path, seed: int) -> Side:
    """Let the peer train."""
    updates = measured("launch.benches.race_peer", str(folder), str(seed), python=peers.install(), quiet=True)
    return {
        minute: {"updates": updates[str(minute)], "pass@1": solved(folder, folder / f"after-{minute}")}
        for minute in MINUTES
    }


def carry_out(script: str, settings: dict[str, Any]) -> None:
    given = [f"{key}={value}" for key, value in settings.items()]
    subprocess.run([sys.executable, str(RUN.with_name(script)), *given], check=True, stdout=sys.stderr)


def solved(folder: Path, adapter: Path) -> float:
    """Return an adapter's pass@1 on the held-out problems of the quickstart."""
    settings = {
        "conf": "quickstart",
        "run.name": f"of-{adapter.name}",
        "run.folder": folder,
        "adapter": adapter,
        "benchmarks": "[heldout]",
        "n": SAMPLES,
    }
    carry_out("evaluate.py", settings)
    document = EvaluationFolder(RunRecord(folder / f"of-{adapter.name}").evaluation_folder).document()
    assert document
    return float(document["benchmarks"][0]["adapter"]["pass@1"]["value"])
