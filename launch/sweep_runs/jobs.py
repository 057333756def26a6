"""The jobs of a sweep: runs, and evaluations of base models and of results on its benchmarks."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from microbudget_rl.actors.evaluation.folder import EvaluationFolder
from microbudget_rl.actors.models.adapters import WEIGHTS_FILE
from microbudget_rl.actors.storage.files import digest
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.catalogue import find_benchmarks
from microbudget_rl.conf.load import written
from microbudget_rl.conf.schema import Config, SweepConfig, among
from microbudget_rl.conf.schema.run import YEAR_H
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.plan.plan import Plan

SEED = "run.seed"

SHORT = {"lora.rank": "r", "run.seed": "seed", "conf": "", "model.path": ""}
"""Prefixes of an axis's value in a run's name. For other axes it is the last part of the key and an equals sign."""

MODEL = ("conf", "model.path")
"""Axes that change the model, so that accuracies are not comparable."""

UNLIMITED = (f"budget.hours={YEAR_H}", "budget.minutes=null")
"""Arguments of an evaluation: it ends with its last sample."""


@dataclass(eq=False)
class SweepRun:
    """One run of a sweep.

    program: the file in launch/ that carries it out. arguments: those of the program.
    overrides: its value on each axis.
    config: the settings that the arguments stand for; its budget is the run's part of the sweep's.
    plan: on its worker's part of the machine, from `plan_runs` on.
    status, reason: as in sweep.json. evaluations: that of its result, if the sweep has benchmarks.
    """

    program: ClassVar = "run"
    obstacle: ClassVar = None
    name: str
    overrides: dict[str, Any]
    arguments: tuple[str, ...]
    config: Config
    plan: Plan = field(init=False)
    status: str = "pending"
    reason: str | None = None
    evaluations: "list[Evaluation]" = field(default_factory=list)

    def set(self, key: str, value: object) -> None:
        """Give the run another value of a setting."""
        self.config = changed(self.config, {key: value})
        self.arguments = (*(each for each in self.arguments if not each.startswith(f"{key}=")), f"{key}={value}")

    @property
    def record(self) -> RunRecord:
        return RunRecord(self.config.run.path)

    @property
    def folder(self) -> Path:
        return self.record.path

    @property
    def outcome(self) -> tuple[str, str | None] | None:
        """Its status and the reason, according to its folder; None for a run that has not ended."""
        summary = self.record.summary()
        return (summary.status, summary.reason) if summary else None

    @property
    def finished(self) -> bool:
        return self.record.finished() is not None

    @property
    def of_model(self) -> dict[str, Any]:
        """Its values on the axes that change the model."""
        return {key: value for key, value in self.overrides.items() if key in MODEL}


@dataclass(eq=False)
class Evaluation:
    """An evaluation of the result of a run or, for `base-…`, of the base model of several.

    name: its folder's. run: for a base model, its first run. base: the base model's, whose samples are taken over.
    """

    program: ClassVar = "evaluate"
    grid: "Grid"
    name: str
    run: SweepRun
    base: "Evaluation | None" = None
    status: str = "pending"
    reason: str | None = None

    @property
    def folder(self) -> Path:
        return self.grid.folder / self.name / "evaluation"

    @property
    def overrides(self) -> dict[str, Any]:
        return self.run.of_model

    @property
    def arguments(self) -> list[str]:
        """The arguments of launch/evaluate.py, which refuses to go on with samples of another policy or seed."""
        sweep, config = self.grid.settings, self.run.config
        settings = [written("benchmarks", sweep.benchmarks), f"n={sweep.n}", f"device={config.device}", *UNLIMITED]
        settings += [written("limit", self.grid.limit), f"{SEED}={self.grid.seed}"]
        if self.base:
            return [f"adapter={self.run.folder}", f"base={self.base.folder}", *settings]
        settings += [f"run.name={self.name}", f"model.dtype={config.model.dtype}"]
        replaced = ("budget", *(each.partition("=")[0] for each in settings))
        return [*(each for each in self.run.arguments if not among(each.partition("=")[0], replaced)), *settings]

    @property
    def finished(self) -> bool:
        """Whether its folder has all samples, with the sweep's seed and of the run's result."""
        document, result = EvaluationFolder(self.folder).document(), self.run.record.checkpoints.result
        if not document or document.status != "completed" or document.protocol.seed != self.grid.seed:
            return False
        if self.base and result and document.protocol.adapter_digest != digest(result / "adapter" / WEIGHTS_FILE):
            return False
        asked, whole = self.grid.settings, (self.grid.limit, self.grid.settings.n)
        samples = {each.name: (each.limit, each.adapter if self.base else each.base) for each in document.benchmarks}
        measured = {name: (limit, scores.n) for name, (limit, scores) in samples.items() if scores}
        return all(measured.get(each.name) == whole for each in find_benchmarks(asked.benchmarks))

    @property
    def outcome(self) -> tuple[str, str | None] | None:
        return ("completed", None) if self.finished else None

    @property
    def obstacle(self) -> tuple[str, str] | None:
        """Status and reason if it cannot take place, after its run and the base model's evaluation."""
        if self.base and not (self.run.finished and self.run.record.checkpoints.result):
            return "skipped", "its run has no checkpoint" if self.run.finished else f"its run is {self.run.status}"
        if self.base and not self.base.finished:
            return "failed", f"the evaluation of {self.base.name} is {self.base.status}: {self.base.reason}"
        return None


Job = SweepRun | Evaluation


@dataclass(frozen=True)
class Grid:
    """A sweep as it was requested. runs: seeds change slowest, so that a sweep cut short has compared something.

    folder: the parent of the runs' folders. plan: whether only that is requested. simulate: with it, numbers of GPUs.
    limit: most problems per benchmark.
    """

    name: str
    conf: str
    settings: SweepConfig
    axes: dict[str, list[Any]]
    runs: tuple[SweepRun, ...]
    folder: Path
    plan: bool = False
    simulate: Sequence[int] = ()
    limit: int | None = None

    @property
    def seed(self) -> int:
        """The seed of all evaluations: that of the first run."""
        return self.runs[0].config.run.seed

    @property
    def bases(self) -> list[Evaluation]:
        """The evaluations of the base models."""
        return [*dict.fromkeys(each.base for each in self.evaluations if each.base)]

    @property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations of the runs' results."""
        return [each for run in self.runs for each in run.evaluations]

    def phases(self, workers: int) -> list[list[list[Job]]]:
        """Return the jobs of each worker: first the base models, for which all runs wait, then runs and results."""
        turns, bases = range(workers), self.bases
        pairs: list[list[Job]] = [[run, *run.evaluations] for run in self.runs]
        return [[[*bases[turn::workers]] for turn in turns], [[*chain(*pairs[turn::workers])] for turn in turns]]


def named(key: str, value: Any) -> str:
    """Return the part of a run's name that states its value on an axis."""
    text = value if isinstance(value, str) else json.dumps(value)
    if key in MODEL:
        text = text.rstrip("/").rpartition("/")[2].removeprefix("bundled:")
    start = SHORT.get(key, f"{key.rpartition('.')[2]}=")
    return start + re.sub(r"[^\w.+=@-]+", "_", text).strip("_")
