"""What the folder of a run or of a sweep tells, as far as it is there."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from actors.storage.files import digest
from conf.adapters import WEIGHTS_FILE
from conf.errors import BadInput
from launch.session.resume import MAY_CHANGE, among, flatten
from rewards.problems.loading import STAYS

Row = dict[str, Any]

CORRECT = "correct"

SEED = "run.seed"

OWN = ("run.name", SEED)
"""Settings that differ between the runs of one experiment."""

UNTOLD = tuple(key for key in (*MAY_CHANGE, "conf", "model.shape") if key not in ("budget", "guard"))
"""Settings that say how fast a run is done, or again what another says."""

ASKED = ("lora.rank", "learner.learning_rate", "model.path")
"""Axes that a reader asks about first."""

SETUP = "setup"
"""The axis of a comparison that stands for several further settings, whose combinations it numbers."""


@dataclass(frozen=True)
class Run:
    """One run folder. config: flat, by dotted key. summary: empty until the run has ended. before, after: the samples
    of the two evaluations. evaluation: of launch/evaluate.py, if that judged this run's model and
    checkpoints; else foreign says what it judged. overlaps: training problems that overlap held-out ones, and yet
    stayed. restores: how often weights were brought back.
    """

    folder: Path
    config: dict[str, Any]
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
    def status(self) -> str:
        return str(self.summary.get("status", "unfinished"))

    @property
    def base(self) -> Row | None:
        """Held-out evaluation of the base model, as summary.json has it."""
        return (self.summary.get("eval") or {}).get("base")

    @property
    def final(self) -> Row | None:
        """Held-out evaluation of the trained policy."""
        return (self.summary.get("eval") or {}).get("final")

    @property
    def budget_s(self) -> float | None:
        """Seconds that the run may take, or might."""
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

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Updates and the finite values of a metric at them; at 0 what the evaluation of the base model knows of it."""
        rows = [{**(self.base or {}), "update": 0}, *self.rows]
        points = [(row["update"], row[name]) for row in rows if row.get(name) is not None]
        finite = [(int(update), float(value)) for update, value in points if math.isfinite(value)]
        return [update for update, _ in finite], [value for _, value in finite]

    def names(self, prefix: str) -> list[str]:
        """Metrics that begin so, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name.startswith(prefix)))

    @cached_property
    def solved(self) -> tuple[dict[str, float], dict[str, float]]:
        """Share of correct samples of each held-out problem, before and after."""
        return _solved(self.before), _solved(self.after)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. settings: its values on the sweep's axes, and more. run: None before it has begun."""

    name: str
    settings: dict[str, Any]
    seed: int
    status: str
    reason: str
    run: Run | None


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in a few settings. axes: dotted keys and their values in order, the seed left out. others: the
    settings behind the axis `SETUP`.
    """

    name: str
    folder: Path
    axes: dict[str, tuple[Any, ...]]
    cells: tuple[Cell, ...]
    others: tuple[str, ...] = ()


def read_run(folder: Path) -> Run:
    """BadInput if the folder is not that of a run, or a file in it is damaged."""
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder} is not the folder of a run: it has no config.yaml")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    flat = flatten(config)
    evaluation = _json(folder / "evaluation" / "evaluation.json") or {}
    foreign = _foreign(evaluation.get("protocol") or {}, folder, flat) if evaluation else ""
    summary = _json(folder / "summary.json") or {}
    if not summary:
        base = _json(folder / "eval-base.json")
        summary = {"eval": {"base": base, "final": None}, "ledger": _json(folder / "ledger.json") or {}}
    return Run(
        folder=folder,
        config=flat,
        summary=summary,
        rows=_lines(folder / "metrics.jsonl"),
        events=_lines(folder / "events.jsonl"),
        before=_lines(folder / "samples" / "eval-base.jsonl"),
        after=_lines(folder / "samples" / "eval-final.jsonl"),
        evaluation={} if foreign else evaluation,
        foreign=foreign,
        overlaps=sum(row.get("reason") == STAYS for row in _lines(folder / "problems-left-out.jsonl")),
        restores=_json(folder / "incarnation.json") or 0,
        spent_s=float(summary.get("spent_s") or (_json(folder / "spent.json") or {}).get("spent_s", 0.0)),
    )


def _foreign(protocol: Row, folder: Path, config: dict[str, Any]) -> str:
    """What an evaluation judged, unless that is this run's model, known by its name, alone or with one of the run's
    checkpoints. One that is gone is known by its place.
    """
    model, adapter = str(protocol.get("model", "")), protocol.get("adapter")
    if Path(model).name != Path(str(config.get("model.path", ""))).name:
        return f"model {model}"
    checkpoints = folder / "checkpoints"
    if not adapter or Path(adapter).resolve().is_relative_to(checkpoints.resolve()):
        return ""
    kept = {digest(file) for file in checkpoints.glob(f"update-*/adapter/{WEIGHTS_FILE}")}
    return "" if protocol.get("adapter_digest") in kept else f"adapter {adapter}"


def read_sweep(folder: Path) -> Sweep:
    """A sweep by its sweep.json; BadInput if that cannot be read."""
    plan = _plan(folder)
    keys = [key for key in dict.fromkeys(key for cell in plan["cells"] for key in cell["overrides"]) if key not in OWN]
    cells = [_told(cell, keys) for cell in _cells(folder)]
    return Sweep(str(plan.get("name") or folder.name), folder, _axes(keys, cells), tuple(cells))


def compare(folders: list[Path]) -> Sweep:
    """Several runs, or the cells of sweeps, in one sweep's shape: the axes are the settings in which they differ. Each
    is named by its path from where all of them are. BadInput if a folder is neither, or of a sweep that has not begun.
    """
    parents = {folder.resolve().parent for folder in folders}
    place = parents.pop() if len(parents) == 1 else Path.cwd()
    found: dict[str, Cell] = {}
    for folder in folders:
        path = os.path.relpath(folder.resolve(), place)
        if not _is_sweep(folder):
            found[path] = _cell(path, read_run(folder))
            continue
        cells = _cells(folder)
        if not any(cell.run for cell in cells):
            raise BadInput(f"{folder}: none of its runs can be read yet; leave it out")
        found |= {f"{path}/{cell.name}": replace(cell, name=f"{path}/{cell.name}") for cell in cells}
    swept = any(_is_sweep(folder) or _is_sweep(folder.resolve().parent) for folder in folders)
    untold = (*UNTOLD, "budget") if swept else UNTOLD  # a sweep's cells get what others have left
    known = dict.fromkeys(key for cell in found.values() for key in cell.settings if not among(key, (*OWN, *untold)))
    keys = [key for key in known if len({_plain(cell.settings.get(key)) for cell in found.values()}) > 1]
    others = [key for key in keys if key not in ASKED]
    merged = others if len(others) > 1 else []
    kinds: dict[str, int] = {}
    cells = []
    for cell in found.values():
        settings = _told(cell, [key for key in keys if key not in merged]).settings
        if merged:
            kind = _text([_plain(cell.settings.get(key)) for key in merged])
            settings[SETUP] = kinds.setdefault(kind, len(kinds) + 1)
        cells.append(replace(cell, settings=settings))
    name = f"Comparison of {len(cells)} runs"
    return Sweep(name, place, _axes(list(cells[0].settings), cells), tuple(cells), tuple(merged))


def _is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").is_file()


def _plan(folder: Path) -> Row:
    """What sweep.json says."""
    plan: Row | None = _json(folder / "sweep.json")
    if not plan:
        raise BadInput(f"{folder} is not the folder of a sweep: it has no sweep.json")
    return plan


def _cells(folder: Path) -> list[Cell]:
    """The cells of a sweep with all settings that are known of them; of one without a run, those of the run that its
    overrides share most with.
    """
    planned = _plan(folder)["cells"]
    begun = [_begun(folder / str(cell.get("run") or cell["cell"])) for cell in planned]
    runs = [(cell["overrides"], run) for cell, (run, _) in zip(planned, begun, strict=True) if run]
    cells = []
    for cell, (run, damage) in zip(planned, begun, strict=True):
        own = cell["overrides"]
        shared = [sum(own.get(key) == value for key, value in overrides.items()) for overrides, _ in runs]
        nearest = run or (runs[shared.index(max(shared))][1] if runs else None)
        found = _cell(str(cell["cell"]), run, {**(nearest.config if nearest else {}), **own})
        status = "unreadable" if damage else str(cell.get("status") or found.status)
        cells.append(replace(found, status=status, reason=damage or str(cell.get("reason") or found.reason)))
    return cells


def _begun(folder: Path) -> tuple[Run | None, str]:
    """The run in a folder, or what is damaged of it; neither if it has not begun."""
    if not (folder / "config.yaml").is_file():
        return None, ""
    try:
        return read_run(folder), ""
    except BadInput as error:
        return None, str(error)


def _cell(name: str, run: Run | None, settings: dict[str, Any] | None = None) -> Cell:
    """With the settings of its run, if no others are given."""
    known = settings or (run.config if run else {})
    reason = str(run.summary.get("reason", "")) if run else ""
    return Cell(name, known, int(known.get(SEED, 0)), run.status if run else "pending", reason, run)


def _told(cell: Cell, keys: Iterable[str]) -> Cell:
    """With the settings of these keys alone, comparable."""
    return replace(cell, settings={key: _plain(cell.settings.get(key)) for key in keys})


def _axes(keys: list[str], cells: Iterable[Cell]) -> dict[str, tuple[Any, ...]]:
    """The keys that have several values, each with these, numbers in order."""
    axes = {}
    for key in keys:
        values = list(dict.fromkeys(cell.settings[key] for cell in cells))
        if len(values) > 1:
            numbers = all(isinstance(value, int | float) for value in values)
            axes[key] = tuple(sorted(values) if numbers else values)
    return axes


def _plain(value: Any) -> Any:
    """A value that can be a key; YAML writes 1e-5 without a point as text. No settings are as good as none given."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if value == {}:
        return None
    return value if isinstance(value, int | float | None) else _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _solved(samples: Iterable[Row]) -> dict[str, float]:
    tally: dict[str, list[bool]] = {}
    for sample in samples:
        tally.setdefault(str(sample["problem"]), []).append(sample["status"] == CORRECT)
    return {problem: sum(marks) / len(marks) for problem, marks in tally.items()}


def _json(file: Path) -> Any:
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise BadInput(f"{file} is not JSON ({error}): move it out of the way to see the rest") from None


def _lines(file: Path) -> tuple[Row, ...]:
    """The rows of a file of lines, without one that is only half written."""
    return tuple(_rows(file)) if file.is_file() else ()


def _rows(file: Path) -> Iterator[Row]:
    for number, line in enumerate(file.read_text().splitlines(keepends=True), start=1):
        if line.endswith("\n"):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise BadInput(f"{file}, line {number} is not JSON ({error}): mend it or move the file away") from None
