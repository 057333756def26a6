"""Reads the folder of a run, of a sweep, or of several of them that are compared."""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from actors.messages import Status
from actors.models.adapters import WEIGHTS_FILE
from actors.storage.contents import Plan
from actors.storage.files import digest, read_json
from actors.storage.run_record import RunRecord
from conf.departed import key_today, value_today
from conf.errors import BadInput
from conf.load import flatten
from conf.schema import among, marked
from rewards.problems.loading import OVERLAP_KEPT

Row = dict[str, Any]

RANK, LEARNING_RATE, MODEL, SEED = "lora.rank", "learner.learning_rate", "model.path", "run.seed"

OWN = ("run.name", SEED)
"""Settings that differ between the runs of one experiment."""

IGNORED = ("conf", *marked("repeated"))
"""Settings in which runs of one setup may differ: they say how fast a run is done, or repeat others."""


@dataclass(frozen=True)
class Run:
    """One run folder, or a cell of a sweep.

    config: by dotted key.
    begun: whether the folder can be read; all below is then known.
    cell_status, reason: status and reason, as a sweep has them of a cell.
    summary: summary.json, or the part of it that is known before the run has ended.
    base, final: held-out evaluation of the base model and of the trained policy; before, after: their samples.
    evaluation: evaluation.json of launch/evaluate.py, if it is about this run's model and checkpoints.
    foreign: what else that file is about; empty if nothing.
    overlaps: training problems that were kept although they overlap held-out ones.
    restores: how often weights were restored.
    origin: command, commit, date and machine, and what the plan expected, as far as they were kept.
    """

    name: str
    folder: Path
    config: Row
    begun: bool = False
    cell_status: str = "pending"
    reason: str = ""
    summary: Row = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()
    base: Row | None = None
    final: Row | None = None
    before: tuple[Row, ...] = ()
    after: tuple[Row, ...] = ()
    ledger: Row = field(default_factory=dict)
    plasticity: Row = field(default_factory=dict)
    versions: Row = field(default_factory=dict)
    origin: Row = field(default_factory=dict)
    evaluation: Row = field(default_factory=dict)
    foreign: str = ""
    overlaps: int = 0
    restores: int = 0
    budget_s: float | None = None
    spent_s: float = 0.0

    @property
    def model(self) -> str:
        return str(self.config.get(MODEL, ""))

    @property
    def seed(self) -> int:
        return int(self.config.get(SEED) or 0)

    @property
    def status(self) -> str:
        return str(self.summary.get("status", "unfinished"))

    @cached_property
    def settings(self) -> Row:
        """The settings as values that can be compared."""
        return {key: _comparable(value) for key, value in self.config.items()}

    @cached_property
    def solved(self) -> tuple[dict[str, float], dict[str, float]]:
        """Share of correct samples of each held-out problem, before and after."""
        return _solved(self.before), _solved(self.after)

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Return updates and a metric's finite values at them. Update 0 is the evaluation of the base model."""
        rows = [{**(self.base or {}), "update": 0}, *self.rows]
        points = [(int(row["update"]), float(row[name])) for row in rows if row.get(name) is not None]
        finite = [(update, value) for update, value in points if math.isfinite(value)]
        return [update for update, _ in finite], [value for _, value in finite]

    def entropy_change(self, probed: bool) -> float | None:
        """Return the relative change of the entropy per token: of the probe's fixed responses, or else of the training
        samples between the first and the last tenth of the updates.
        """
        if probed:
            probe = self.plasticity.get("probe_entropy")
            return float(probe["change"]) if probe else None
        _, values = self.series("policy/entropy")
        tenth = max(len(values) // 10, 1)
        if len(values) < 2 or not (first := fmean(values[:tenth])):
            return None
        return fmean(values[-tenth:]) / first - 1


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in a few settings. axes: dotted keys, without the seed, and their values in order."""

    name: str
    folder: Path
    axes: dict[str, tuple[Any, ...]]
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[Run]:
        """The runs with a final evaluation."""
        return [run for run in self.runs if run.final]

    @property
    def unfinished(self) -> list[Run]:
        """The runs without one."""
        return [run for run in self.runs if not run.final]


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises BadInput if it is something else, or if a file in it is damaged."""
    record = RunRecord(folder)
    if not record.exists:
        raise BadInput(f"{folder} is not the folder of a run: it has no config.yaml")
    config = flatten(record.config())
    evaluation = record.benchmarks() or {}
    foreign = _foreign(evaluation.get("protocol") or {}, record, config) if evaluation else ""
    summary = record.summary() or {"eval": {"base": record.evaluation("base")}, "ledger": record.ledger()}
    minutes, hours = config.get("budget.minutes"), config.get("budget.hours")
    return Run(
        name=str(config.get("run.name") or folder.name),
        folder=folder,
        config=config,
        begun=True,
        cell_status=str(summary.get("status", "unfinished")),
        reason=str(summary.get("reason") or ""),
        summary=summary,
        rows=tuple(record.rows()),
        events=tuple(record.events()),
        base=(summary.get("eval") or {}).get("base"),
        final=(summary.get("eval") or {}).get("final"),
        before=tuple(record.samples("eval-base")),
        after=tuple(record.samples("eval-final")),
        ledger=summary.get("ledger") or {},
        plasticity=summary.get("plasticity") or {},
        versions=summary.get("versions") or {},
        origin=record.origin(),
        evaluation={} if foreign else evaluation,
        foreign=foreign,
        overlaps=sum(row.get("reason") == OVERLAP_KEPT for row in record.left_out()),
        restores=record.incarnation(),
        budget_s=summary.get("budget_s") or (minutes * 60 if minutes else hours * 3600 if hours else None),
        spent_s=float(summary.get("spent_s") or record.spent),
    )


def _foreign(protocol: Row, record: RunRecord, config: Row) -> str:
    """Return what an evaluation is about; empty if that is this run's model, alone or with a checkpoint of the run.

    A model is known by its name, a checkpoint by its place or its content.
    """
    model, adapter = str(value_today("model.path", protocol.get("model", ""))), protocol.get("adapter")
    if Path(model).name != Path(str(config.get(MODEL, ""))).name:
        return f"model {model}"
    if not adapter or Path(adapter).resolve().is_relative_to(record.checkpoints.folder.resolve()):
        return ""
    weights = [checkpoint / "adapter" / WEIGHTS_FILE for checkpoint in record.checkpoints.all]
    known = {digest(file) for file in weights if file.is_file()}
    return "" if protocol.get("adapter_digest") in known else f"adapter {adapter}"


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep's folder. Raises BadInput if it has no sweep.json that can be read."""
    plan = _plan(folder)
    keys = dict.fromkeys(key for entry in plan["cells"] for key in entry["overrides"] if key not in OWN)
    runs = tuple(_cells(folder))
    name = str(plan.get("name") or folder.name)
    return Sweep(name, folder, _axes(keys, runs), runs)


def compare(folders: list[Path]) -> Sweep:
    """Read several runs, or the cells of sweeps, as one sweep whose axes are the settings in which they differ.

    A run is named by its path from where all of them are. Raises BadInput for a folder that is neither a run's nor a
    sweep's, and for a sweep that has not begun.
    """
    parents = {folder.resolve().parent for folder in folders}
    place = parents.pop() if len(parents) == 1 else Path.cwd()
    found: dict[str, Run] = {}
    for folder in folders:
        path = os.path.relpath(folder.resolve(), place)
        if is_sweep(folder):
            cells = _cells(folder)
            if not any(run.begun for run in cells):
                raise BadInput(f"{folder}: none of its runs can be read yet; leave it out")
            found |= {f"{path}/{run.name}": run for run in cells}
        else:
            found[path] = read_run(folder)
    runs = [replace(run, name=name) for name, run in found.items()]
    of_sweeps = any(is_sweep(folder) or is_sweep(folder.resolve().parent) for folder in folders)
    ignored = (*IGNORED, "budget") if of_sweeps else IGNORED  # a sweep's cells get what others have left
    known = dict.fromkeys(key for run in runs for key in run.settings if not among(key, ignored))
    return Sweep(f"Comparison of {len(runs)} runs", place, _axes(known, runs), tuple(runs))


def is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").is_file()


def _plan(folder: Path) -> Row:
    plan: Row | None = read_json(folder / "sweep.json", Plan)
    if not plan:
        raise BadInput(f"{folder} is not the folder of a sweep: it has no sweep.json")
    for entry in plan["cells"]:
        renewed = ((key_today(key), value) for key, value in entry["overrides"].items())
        entry["overrides"] = {key: value_today(key, value) for key, value in renewed}
    return plan


def _cells(folder: Path) -> list[Run]:
    """Read the cells of a sweep. One without a run has the settings of the run that it has most in common with."""
    found: list[tuple[Row, Run]] = []
    for entry in _plan(folder)["cells"]:
        name, place = str(entry["cell"]), folder / str(entry.get("run") or entry["cell"])
        run = Run(name, place, {})
        try:
            run = read_run(place) if RunRecord(place).exists else run
            status, reason = entry.get("status"), entry.get("reason")
        except BadInput as error:
            status, reason = "unreadable", str(error)
        status, reason = status or run.cell_status, reason or run.reason
        found.append((entry, replace(run, name=name, cell_status=status, reason=reason)))
    begun = [(entry["overrides"], run.config) for entry, run in found if run.begun]
    runs = []
    for entry, run in found:
        own = entry["overrides"]
        shared = [sum(own.get(key) == value for key, value in overrides.items()) for overrides, _ in begun]
        nearest = run.config if run.begun or not begun else begun[shared.index(max(shared))][1]
        runs.append(replace(run, config={**nearest, **own}))
    return runs


def _axes(keys: Iterable[str], runs: Iterable[Run]) -> dict[str, tuple[Any, ...]]:
    """Return the keys that have several values, each with these, numbers in order."""
    axes = {}
    for key in keys:
        values: list[Any] = list(dict.fromkeys(run.settings.get(key) for run in runs))
        if len(values) > 1:
            numbers = all(isinstance(value, int | float) for value in values)
            axes[key] = tuple(sorted(values) if numbers else values)
    return axes


def _comparable(value: Any) -> Any:
    """Return a value that can be a key. YAML writes 1e-5 as text; an empty mapping is as good as none."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if value == {}:
        return None
    return value if isinstance(value, int | float | None) else json.dumps(value, sort_keys=True)


def _solved(samples: Iterable[Row]) -> dict[str, float]:
    marks: dict[str, list[bool]] = {}
    for sample in samples:
        marks.setdefault(str(sample["problem"]), []).append(sample["status"] == Status.CORRECT)
    return {problem: fmean(of_problem) for problem, of_problem in marks.items()}
