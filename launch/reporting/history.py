"""Reads the folder of a sweep, or of several runs to compare."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from microbudget_rl.actors.evaluation.folder import EvaluationFolder
from microbudget_rl.actors.evaluation.statistics import PASS_KS
from microbudget_rl.actors.formats import counted
from microbudget_rl.actors.results import UNFINISHED, Results, read_run
from microbudget_rl.actors.storage import documents
from microbudget_rl.actors.storage.files import read_document
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.catalogue import find_benchmarks
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.conf.schema import affecting, among

RANK, LEARNING_RATE, MODEL, SEED = "lora.rank", "learner.learning_rate", "model.path", "run.seed"

OWN = ("run.name", SEED)
"""Settings that differ between the runs of one experiment."""

IGNORED = ("conf", *affecting("operation", "repetition"))
"""Settings in which runs of one setup may differ."""


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in a few settings. axes: dotted keys, without the seed, and their values in order.

    bases: the base models' own evaluations on the benchmarks, without a run.
    benchmarks, n, pass_at, remark: as in sweep.json, the benchmarks by name.
    """

    name: str
    folder: Path
    axes: dict[str, tuple[Any, ...]]
    runs: tuple[Results, ...]
    bases: tuple[Results, ...] = ()
    benchmarks: tuple[str, ...] = ()
    n: int | None = None
    pass_at: tuple[int, ...] = PASS_KS
    remark: str = ""

    @property
    def finished(self) -> list[Results]:
        return [run for run in self.runs if run.eval.final]


def read_sweep(folder: Path) -> Sweep:
    if (plan := read_document(folder / "sweep.json", documents.SweepDocument)) is None:
        raise BadInput(f"{folder} is not the folder of a sweep: it has no sweep.json")
    runs = [_read(folder, plan, entry) for entry in plan.runs]
    keys = dict.fromkeys(key for run in runs for key in run.given)
    named = dict.fromkeys(each for key in keys for each in ((MODEL, RANK) if key == "conf" else (key,)))
    return Sweep(
        plan.name or folder.name,
        folder,
        _axes(named, runs),
        tuple(runs),
        bases=tuple(_read(folder, plan, entry) for entry in plan.bases),
        benchmarks=tuple(each.name for each in find_benchmarks(plan.benchmarks)),
        n=plan.n,
        pass_at=tuple(sorted({1, *(k for k in plan.pass_at or PASS_KS if k <= (plan.n or k))})),
        remark=plan.remark,
    )


def read_together(folders: list[Path]) -> Sweep:
    """Read several runs, or the runs of sweeps, as one sweep whose axes are the settings in which they differ.

    A run's name is its path from the common parent folder, or else from the working directory. Raises BadInput for a
    folder that is neither a run's nor a sweep's, and for a sweep that has not begun.
    """
    parents = {folder.resolve().parent for folder in folders}
    place = parents.pop() if len(parents) == 1 else Path.cwd()
    collected: dict[str, Results] = {}
    for folder in folders:
        path = os.path.relpath(folder.resolve(), place)
        if is_sweep(folder):
            if not (begun := [run for run in read_sweep(folder).runs if run.begun]):
                raise BadInput(f"{folder}: none of its runs can be read yet; leave it out")
            collected |= {f"{path}/{run.name}": run for run in begun}
        else:
            collected[path] = read_run(folder)
    runs = [replace(run, name=name, given={}) for name, run in collected.items()]
    of_sweeps = any(is_sweep(folder) or is_sweep(folder.resolve().parent) for folder in folders)
    ignored = (*IGNORED, "budget") if of_sweeps else IGNORED  # runs of a sweep share its time
    known = dict.fromkeys(key for run in runs for key in run.settings if not among(key, ignored))
    return Sweep(f"Comparison of {counted(len(runs), 'run')}", place, _axes(known, runs), tuple(runs))


def is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").is_file()


def _read(folder: Path, plan: documents.SweepDocument, entry: documents.SweepEntry) -> Results:
    """Read a run of a sweep, or a base model's evaluation. A run that has not begun has only the sweep's settings."""
    place, status, reason, evaluation = folder / entry.name, entry.status, entry.reason or "", None
    known: dict[str, Any] = {"name": entry.name, "benchmarked": entry.benchmarked}
    known["given"] = {key: value for key, value in entry.overrides.items() if key not in OWN}
    try:
        if (record := RunRecord(place)).exists:
            return replace(read_run(place), sweep_status=status, **known)
        evaluation = EvaluationFolder(record.evaluation_folder).document()
    except BadInput as error:
        status, reason = "unreadable", str(error)
    given = dict(entry.overrides)
    recipe = given.pop("conf", plan.conf or "")
    try:  # the recipe's model and rank in place of the recipe
        config = load([f"conf={recipe}"])
        settings = {MODEL: config.model.path, RANK: config.lora.rank, **given}
    except BadInput:
        settings = {MODEL: evaluation.protocol.model if evaluation else recipe, **given}
    summary = UNFINISHED.model_copy(update={"reason": reason})
    return Results(folder=place, config=settings, sweep_status=status, summary=summary, evaluation=evaluation, **known)


def _axes(keys: Iterable[str], runs: Iterable[Results]) -> dict[str, tuple[Any, ...]]:
    """Return the keys with several values, and these values, numbers in order."""
    axes = {}
    for key in keys:
        values: list[Any] = list(dict.fromkeys(run.settings.get(key) for run in runs))
        if len(values) > 1:
            numbers = all(isinstance(value, int | float) for value in values)
            axes[key] = tuple(sorted(values) if numbers else values)
    if MODEL in axes:
        axes.pop("model.pin", None)  # another model has another one
    return axes
