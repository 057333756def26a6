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
from actors.storage.files import digest, read_json
from actors.storage.run_record import RunRecord
from conf.adapters import WEIGHTS_FILE
from conf.errors import BadInput
from conf.schema import MAY_CHANGE
from launch.session.resume import among, flatten
from rewards.problems.loading import STAYS

Row = dict[str, Any]

RANK, LEARNING_RATE, MODEL, SEED = "lora.rank", "learner.learning_rate", "model.path", "run.seed"

OWN = ("run.name", SEED)
"""Settings that differ between the runs of one experiment."""

UNTOLD = (
    *OWN,
    *(key for key in (*MAY_CHANGE, "conf", "model.shape") if not key.startswith(("budget.", "guard."))),
)
"""Settings in which runs of one setup may differ: they say how fast a run is done, or repeat others."""

ASKED = (RANK, LEARNING_RATE, MODEL)
"""Settings that a reader asks about first."""

SETUP = "setup"
"""The axis of a comparison that numbers the combinations of several other settings."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    config: by dotted key.
    summary: summary.json, or the part of it that is known before the run has ended.
    before, after: samples of the two held-out evaluations.
    evaluation: evaluation.json of launch/evaluate.py, if it is about this run's model and checkpoints.
    foreign: what else that file is about; empty if nothing.
    overlaps: training problems that were kept although they overlap held-out ones.
    restores: how often weights were restored.
    """

    folder: Path
    config: Row
    summary: Row = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()
    before: tuple[Row, ...] = ()
    after: tuple[Row, ...] = ()
    evaluation: Row = field(default_factory=dict)
    foreign: str = ""
    overlaps: int = 0
    restores: int = 0
    spent_s: float = 0.0

    @property
    def name(self) -> str:
        return str(self.config.get("run.name") or self.folder.name)

    @property
    def model(self) -> str:
        return str(self.config.get(MODEL, ""))

    @property
    def status(self) -> str:
        return str(self.summary.get("status", "unfinished"))

    @property
    def base(self) -> Row | None:
        """Held-out evaluation of the base model."""
        return (self.summary.get("eval") or {}).get("base")

    @property
    def final(self) -> Row | None:
        """Held-out evaluation of the trained policy."""
        return (self.summary.get("eval") or {}).get("final")

    @property
    def budget_s(self) -> float | None:
        if known := self.summary.get("budget_s"):
            return float(known)
        minutes, hours = self.config.get("budget.minutes"), self.config.get("budget.hours")
        return float(minutes) * 60 if minutes else float(hours) * 3600 if hours else None

    @property
    def ledger(self) -> Row:
        return self.summary.get("ledger") or {}

    @property
    def plasticity(self) -> Row:
        return self.summary.get("plasticity") or {}

    @property
    def versions(self) -> Row:
        return self.summary.get("versions") or {}

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Return updates and a metric's finite values at them. Update 0 is the evaluation of the base model."""
        rows = [{**(self.base or {}), "update": 0}, *self.rows]
        points = [(row["update"], row[name]) for row in rows if row.get(name) is not None]
        finite = [(int(update), float(value)) for update, value in points if math.isfinite(value)]
        return [update for update, _ in finite], [value for _, value in finite]

    def names(self, prefix: str) -> list[str]:
        """Return the metrics that begin so, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name.startswith(prefix)))

    @cached_property
    def solved(self) -> tuple[dict[str, float], dict[str, float]]:
        """Share of correct samples of each held-out problem, before and after."""
        return _solved(self.before), _solved(self.after)

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
class Cell:
    """One run of a sweep. settings: by dotted key, as values that can be compared. run: None before it has begun."""

    name: str
    settings: Row
    status: str
    reason: str
    run: Run | None

    @property
    def seed(self) -> int:
        return int(self.settings.get(SEED) or 0)

    @property
    def finished(self) -> Run | None:
        """The run, if it has a final evaluation."""
        return self.run if self.run and self.run.final else None

    @property
    def result(self) -> float | None:
        """Held-out pass@1 of the trained policy."""
        return self.run.final["pass@1"] if self.run and self.run.final else None


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in a few settings. axes: dotted keys, without the seed, and their values in order. others: the
    settings behind the axis `SETUP`.
    """

    name: str
    folder: Path
    axes: dict[str, tuple[Any, ...]]
    cells: tuple[Cell, ...]
    others: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """The runs that have begun."""
        return [cell.run for cell in self.cells if cell.run]

    @property
    def unfinished(self) -> list[Cell]:
        """The cells without a final evaluation."""
        return [cell for cell in self.cells if not cell.finished]


def read_run(folder: Path) -> Run:
    """Read a run folder. Raises BadInput if it is something else, or if a file in it is damaged."""
    record = RunRecord(folder)
    if not record.exists:
        raise BadInput(f"{folder} is not the folder of a run: it has no config.yaml")
    config = flatten(record.config())
    evaluation = record.benchmarks() or {}
    foreign = _foreign(evaluation.get("protocol") or {}, record, config) if evaluation else ""
    summary = record.summary() or {"eval": {"base": record.evaluation("base")}, "ledger": record.ledger()}
    return Run(
        folder=folder,
        config=config,
        summary=summary,
        rows=tuple(record.rows()),
        events=tuple(record.events()),
        before=tuple(record.samples("eval-base")),
        after=tuple(record.samples("eval-final")),
        evaluation={} if foreign else evaluation,
        foreign=foreign,
        overlaps=sum(row.get("reason") == STAYS for row in record.left_out()),
        restores=record.incarnation(),
        spent_s=float(summary.get("spent_s") or record.spent),
    )


def _foreign(protocol: Row, record: RunRecord, config: Row) -> str:
    """Return what an evaluation is about; empty if that is this run's model, alone or with a checkpoint of the run.

    A model is known by its name, a checkpoint by its place or its content.
    """
    model, adapter = str(protocol.get("model", "")), protocol.get("adapter")
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
    cells = tuple(_cells(folder))
    return Sweep(str(plan.get("name") or folder.name), folder, _axes(keys, cells), cells)


def compare(folders: list[Path]) -> Sweep:
    """Read several runs, or the cells of sweeps, as one sweep whose axes are the settings in which they differ.

    A cell is named by its path from where all of them are. Raises BadInput for a folder that is neither a run's nor a
    sweep's, and for a sweep that has not begun.
    """
    parents = {folder.resolve().parent for folder in folders}
    place = parents.pop() if len(parents) == 1 else Path.cwd()
    found: dict[str, Cell] = {}
    for folder in folders:
        path = os.path.relpath(folder.resolve(), place)
        if not _is_sweep(folder):
            run = read_run(folder)
            found[path] = _cell(path, run.config, run)
            continue
        swept = _cells(folder)
        if not any(cell.run for cell in swept):
            raise BadInput(f"{folder}: none of its runs can be read yet; leave it out")
        found |= {f"{path}/{cell.name}": replace(cell, name=f"{path}/{cell.name}") for cell in swept}
    of_sweeps = any(_is_sweep(folder) or _is_sweep(folder.resolve().parent) for folder in folders)
    untold = (*UNTOLD, "budget") if of_sweeps else UNTOLD  # a sweep's cells get what others have left
    cells = list(found.values())
    known = dict.fromkeys(key for cell in cells for key in cell.settings if not among(key, untold))
    keys = [key for key in known if len({cell.settings.get(key) for cell in cells}) > 1]
    others = [key for key in keys if key not in ASKED]
    if len(others) > 1:
        keys = [*(key for key in keys if key in ASKED), SETUP]
        setups = [tuple(cell.settings.get(key) for key in others) for cell in cells]
        numbers = {setup: number for number, setup in enumerate(dict.fromkeys(setups), start=1)}
        cells = [
            replace(cell, settings={**cell.settings, SETUP: numbers[setup]})
            for cell, setup in zip(cells, setups, strict=True)
        ]
    name = f"Comparison of {len(cells)} runs"
    return Sweep(name, place, _axes(keys, cells), tuple(cells), tuple(others) if SETUP in keys else ())


def _is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").is_file()


def _plan(folder: Path) -> Row:
    plan: Row | None = read_json(folder / "sweep.json")
    if not plan:
        raise BadInput(f"{folder} is not the folder of a sweep: it has no sweep.json")
    return plan


def _cells(folder: Path) -> list[Cell]:
    """Read the cells of a sweep. One without a run has the settings of the run that it has most in common with."""
    entries = _plan(folder)["cells"]
    begun = [_begun(folder / str(entry.get("run") or entry["cell"])) for entry in entries]
    configs = [(entry["overrides"], run.config) for entry, (run, _) in zip(entries, begun, strict=True) if run]
    cells = []
    for entry, (run, damage) in zip(entries, begun, strict=True):
        own = entry["overrides"]
        shared = [sum(own.get(key) == value for key, value in overrides.items()) for overrides, _ in configs]
        nearest = run.config if run else configs[shared.index(max(shared))][1] if configs else {}
        status = "unreadable" if damage else str(entry.get("status") or "")
        cells.append(
            _cell(str(entry["cell"]), {**nearest, **own}, run, status, damage or str(entry.get("reason") or ""))
        )
    return cells


def _begun(folder: Path) -> tuple[Run | None, str]:
    """Return the run in a folder, None if it has not begun or is damaged, and what is damaged."""
    if not RunRecord(folder).exists:
        return None, ""
    try:
        return read_run(folder), ""
    except BadInput as error:
        return None, str(error)


def _cell(name: str, settings: Row, run: Run | None, status: str = "", reason: str = "") -> Cell:
    status = status or (run.status if run else "pending")
    reason = reason or (str(run.summary.get("reason", "")) if run else "")
    return Cell(name, {key: _comparable(value) for key, value in settings.items()}, status, reason, run)


def _axes(keys: Iterable[str], cells: Iterable[Cell]) -> dict[str, tuple[Any, ...]]:
    """Return the keys that have several values, each with these, numbers in order."""
    axes = {}
    for key in keys:
        values: list[Any] = list(dict.fromkeys(cell.settings.get(key) for cell in cells))
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
