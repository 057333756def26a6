"""Compares this project with TRL's GRPOTrainer: learning on the quickstart's task, and the updates of `trl_updates`.

Ten minutes of wall-clock time from the start of the process, over three seeds. Both sides get the same model, problems,
prompts, verifier, adapter, batch and learning rate, with its warm-up and its fall over the time. Ours also evaluates
the base model and its last adapter within the time, TRL does not. The adapters of the fifth and tenth minute are
evaluated afterwards, all in the same way.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from microbudget_rl.actors.evaluation.folder import EvaluationFolder
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.actors.storage.run_record import RunRecord
from tests.benches import trl_updates
from tests.benches.results import Result, Row, carry_out
from tests.benches.trl_updates import TRL, train
from tests.conftest import ROOT

SEEDS, MINUTES = (0, 1, 2), (5, 10)
SAMPLES = 8
"""Samples of each held-out problem in an evaluation."""
CHECKPOINTS = {"checkpoint.every": 4, "checkpoint.keep_last": 60}
"""Our checkpoints, 8 GB. Updates between the last checkpoint and the minute's end do not count."""

BATCH = 64
"""Samples per forward pass of TRL."""

Side = dict[int, dict[str, float]]
"""One side's progress by each minute: updates, and pass@1 on the held-out problems."""


def run() -> Result:
    notes = [f"{TRL}; start-up counts on both sides."]
    found = trl_updates.run()
    return Result((*learning(notes), *found.rows), found.limit, (*notes, *found.notes))


def learning(notes: list[str]) -> Iterator[Row]:
    found: dict[str, list[Side]] = {"ours": [], "TRL": []}
    for seed in SEEDS:
        for name, side in (("TRL", theirs), ("ours", ours)):
            with TemporaryDirectory() as folder:
                found[name].append(reached := side(Path(folder), seed))
            print(f"{name}, seed {seed}: {json.dumps(reached)}", flush=True)
    for minute in MINUTES:
        for seed, here, there in zip(SEEDS, found["ours"], found["TRL"], strict=True):
            for metric in ("pass@1", "updates"):
                yield Row(f"seed {seed}, minute {minute}", metric, here[minute][metric], there[minute][metric])
        means = (f"{name} {fmean(side[minute]['pass@1'] for side in sides):.3f}" for name, sides in found.items())
        notes.append(f"Minute {minute}: mean pass@1 {', '.join(means)}.")


def ours(folder: Path, seed: int) -> Side:
    rows = carry_out(folder, {"run.seed": seed, "budget.minutes": MINUTES[-1], **CHECKPOINTS})
    reached = {}
    for minute in MINUTES:
        done = [row for row in rows if row["budget/spent_s"] <= 60 * minute]
        found = (folder / "run/checkpoints").glob("update-*")
        saved = max((each for each in found if version_of(each) <= len(done)), key=version_of, default=None)
        if saved is None:
            raise RuntimeError(f"no checkpoint by minute {minute}: this machine is too slow for this bench")
        adapter = folder / f"after-{minute}"
        shutil.copytree(saved / "adapter", adapter)  # evaluate.py takes a run's folder for all its adapters
        reached[minute] = {"updates": float(version_of(saved)), "pass@1": solved(folder, adapter)}
    return reached


def theirs(folder: Path, seed: int) -> Side:
    found = train(settings=[f"run.seed={seed}"], minutes=MINUTES, folder=str(folder), batch=BATCH)
    return {
        minute: {"updates": found["updates"][str(minute)], "pass@1": solved(folder, folder / f"after-{minute}")}
        for minute in MINUTES
    }


def solved(folder: Path, adapter: Path) -> float:
    """Return an adapter's pass@1 on the held-out problems of the quickstart."""
    name = f"of-{adapter.name}"
    given = ("conf=quickstart", f"run.name={name}", f"run.folder={folder}", f"adapter={adapter}")
    script = str(ROOT / "launch/evaluate.py")
    subprocess.run(
        [sys.executable, script, *given, "benchmarks=[heldout]", f"n={SAMPLES}"], check=True, stdout=sys.stderr
    )
    document = EvaluationFolder(RunRecord(folder / name).evaluation_folder).document()
    scores = document and document.benchmarks[0].adapter
    assert scores
    return scores.pass_at_1
