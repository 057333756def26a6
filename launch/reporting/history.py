"""Reads the folder of a run, of a sweep, or of several runs to compare."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from microbudget_rl.actors.evaluation.folder import EvaluationFolder
from microbudget_rl.actors.evaluation.statistics import PASS_KS, means
from microbudget_rl.actors.formats import counted
from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.storage import documents
from microbudget_rl.actors.storage.files import read_document
from microbudget_rl.actors.storage.run_record import RunRecord, named
from microbudget_rl.conf.catalogue import find_benchmarks
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import flatten, load
from microbudget_rl.conf.schema import affecting, among

RANK, LEARNING_RATE, MODEL, SEED = "lora.rank", "learner.learning_rate", "model.path", "run.seed"

OWN = ("run.name", SEED)
"""Settings that differ between the runs of one experiment."""

IGNORED = ("conf", *affecting("operation", "repetition"))
"""Settings in which runs of one setup may differ."""

UNFINISHED = documents.RunSummary(status="unfinished")

Settings = dict[str, Any]
"""Settings by dotted key."""


@dataclass(frozen=True)
class Run:
    """A run folder, alone or in a sweep.

    begun: whether the folder can be read; otherwise only name, folder, config, sweep_status and a reason are known.
    sweep_status, benchmarked: status of the run, and of its evaluation on the benchmarks, in its sweep.
    summary: summary.json; before the end of the run, the facts known so far.
    samples: those of each evaluation by its name, see `named`.
    evaluation: evaluation.json.
    filtered: number of problems by the reason why they are not used, or used in spite of it.
    given: the values on its sweep's axes, as they stand in sweep.json.
    """

    name: str
    folder: Path
    config: Settings
    begun: bool = False
    sweep_status: str = "pending"
    summary: documents.RunSummary = UNFINISHED
    rows: tuple[documents.MetricsRow, ...] = ()
    events: tuple[documents.Event, ...] = ()
    samples: Mapping[str, list[documents.SampleRow]] = field(default_factory=lambda: defaultdict(list))
    origin: documents.Origin = field(default_factory=documents.Origin)
    evaluation: documents.EvaluationDocument | None = None
    benchmarked: str | None = None
    filtered: Mapping[str, int] = field(default_factory=Counter)
    given: Settings = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return int(self.config.get(SEED) or 0)

    @property
    def eval(self) -> documents.Evaluations:
        return self.summary.eval

    @property
    def start(self) -> str:
        """What has made version 0 another policy than the base model."""
        names = {"lora.start_from": "start adapter", "warm_start.source": "warm start"}
        return " and ".join(name for key, name in names.items() if self.config.get(key))

    def counts(self, prefix: str) -> dict[str, int]:
        """Return the ledger's counts whose names begin with a prefix, by the rest of the name."""
        counts = self.summary.ledger.counts
        return {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}

    @property
    def budget_s(self) -> float | None:
        minutes, hours = self.config.get("budget.minutes"), self.config.get("budget.hours")
        return self.summary.budget_s or (minutes * 60 if minutes else hours * 3600 if hours else None)

    @cached_property
    def settings(self) -> Settings:
        """The settings as they were given, with values that can be compared. A run records a mapping as its keys."""
        known = {key: None if value == {} else value for key, value in (self.config | self.given).items()}
        plain = str, int, float, type(None)
        return {key: of if isinstance(of, plain) else json.dumps(of, sort_keys=True) for key, of in known.items()}

    def solved(self, policy: str, benchmark: str = "") -> dict[str, float]:
        """Return the fraction of correct samples by problem in an evaluation."""
        samples = self.samples[named(policy, benchmark)]
        return means((sample.problem, sample.status == Status.CORRECT) for sample in samples)

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Return the updates in which a metric is finite, and its values. Update 0 is the base model's evaluation."""
        points = {row.update: row.metrics.get(name, math.nan) for row in self.rows}
        if self.eval.base:
            points = {0: self.eval.base.figures.get(name, math.nan)} | points
        finite = {update: float(value) for update, value in points.items() if math.isfinite(value)}
        return list(finite), list(finite.values())


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in a few settings. axes: dotted keys, without the seed, and their values in order.

    bases: the base models' own evaluations on the benchmarks, without a run.
    benchmarks, n, pass_at, remark: as in sweep.json, the benchmarks by name.
    """

    name: str
    folder: Path
    axes: dict[str, tuple[Any, ...]]
    runs: tuple[Run, ...]
    bases: tuple[Run, ...] = ()
    benchmarks: tuple[str, ...] = ()
    n: int | None = None
    pass_at: tuple[int, ...] = PASS_KS
    remark: str = ""

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.eval.final]


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises BadInput if it is not one, or if a file in it is damaged."""
    record = RunRecord(folder)
    if not record.exists:
        raise BadInput(f"{folder} is not the folder of a run: it has no config.yaml")
    config = flatten(asdict(record.config()))
    if (summary := record.summary()) is None:
        known = {"eval": record.evaluations(), "spent_s": record.spent}
        summary = UNFINISHED.model_copy(update=known | {"ledger": record.ledger() or UNFINISHED.ledger})
    return Run(
        name=config["run.name"] or folder.name,
        folder=folder,
        config=config,
        begun=True,
        sweep_status=summary.status,
        summary=summary,
        rows=tuple(record.rows()),
        events=tuple(record.events()),
        samples=defaultdict(
            list, {name.removeprefix("eval-"): record.samples(name) for name in record.sampled("eval")}
        ),
        origin=record.origin(),
        evaluation=EvaluationFolder(record.evaluation_folder).document(),
        filtered=Counter(row.reason for row in record.filtered()),
    )


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
    found: dict[str, Run] = {}
    for folder in folders:
        path = os.path.relpath(folder.resolve(), place)
        if is_sweep(folder):
            if not (begun := [run for run in read_sweep(folder).runs if run.begun]):
                raise BadInput(f"{folder}: none of its runs can be read yet; leave it out")
            found |= {f"{path}/{run.name}": run for run in begun}
        else:
            found[path] = read_run(folder)
    runs = [replace(run, name=name, given={}) for name, run in found.items()]
    of_sweeps = any(is_sweep(folder) or is_sweep(folder.resolve().parent) for folder in folders)
    ignored = (*IGNORED, "budget") if of_sweeps else IGNORED  # runs of a sweep share its time
    known = dict.fromkeys(key for run in runs for key in run.settings if not among(key, ignored))
    return Sweep(f"Comparison of {counted(len(runs), 'run')}", place, _axes(known, runs), tuple(runs))


def is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").is_file()


def _read(folder: Path, plan: documents.SweepDocument, entry: documents.SweepEntry) -> Run:
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
    return Run(folder=place, config=settings, sweep_status=status, summary=summary, evaluation=evaluation, **known)


def _axes(keys: Iterable[str], runs: Iterable[Run]) -> dict[str, tuple[Any, ...]]:
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
