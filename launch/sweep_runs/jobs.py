"""The jobs of a sweep: runs, exams (evaluations of base models and of results), and questions to the doctor."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from actors.evaluation.folder import EvaluationFolder
from actors.models.adapters import WEIGHTS_FILE
from actors.storage.files import digest
from actors.storage.run_record import RunRecord
from conf.catalogue import find_benchmarks
from conf.load import written
from conf.schema import Config, SweepConfig, among
from conf.schema.run import YEAR_H
from conf.settings import changed
from launch.plan.measurements import Signal, recall_signal

SEED = "run.seed"

SHORT = {"lora.rank": "r", "run.seed": "seed", "conf": "", "model.path": ""}
"""Prefixes of an axis's value in a run's name. For other axes it is the last part of the key and an equals sign."""

MODEL = ("conf", "model.path")
"""Axes that change the model, so that accuracies are not comparable."""

UNLIMITED = (f"budget.hours={YEAR_H}", "budget.minutes=null")
"""Arguments of an exam: it ends with its last sample."""


@dataclass(eq=False)
class SweepRun:
    """One run of a sweep.

    overrides: its value on each axis.
    arguments: those of its `launch/run.py`.
    config: the settings that the arguments stand for; its budget is the run's part of the sweep's.
    status, reason: as in sweep.json.
    program: the file in launch/ that carries it out.
    inquiry: what the doctor is asked of its model before. exam: the evaluation of its result.
    """

    program: ClassVar = "run"
    obstacle: ClassVar = None
    name: str
    overrides: dict[str, Any]
    arguments: tuple[str, ...]
    config: Config
    status: str = "pending"
    reason: str | None = None
    inquiry: "Inquiry | None" = None
    exam: "Exam | None" = None

    def set(self, key: str, value: object) -> None:
        """Give the run another value of a setting."""
        self.config = changed(self.config, {key: value})
        self.arguments = (*(each for each in self.arguments if not each.startswith(f"{key}=")), f"{key}={value}")

    @property
    def record(self) -> RunRecord:
        return RunRecord(Path(self.config.run.folder) / self.name)

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
    def exams(self) -> "list[Exam]":
        return [self.exam] if self.exam else []

    @property
    def of_model(self) -> dict[str, Any]:
        """Its values on the axes that change the model."""
        return {key: value for key, value in self.overrides.items() if key in MODEL}

    @property
    def base(self) -> str:
        """The name of its base model among the jobs of the sweep."""
        return "-".join(["base", *(named(key, value) for key, value in self.of_model.items())])


@dataclass(eq=False)
class Inquiry:
    """Asks the doctor whether a base model can learn from the problems of its first run.

    minutes: at most for sampling.
    """

    program, kind, obstacle = "doctor", "signal", None
    run: SweepRun
    minutes: float
    status: str = "pending"
    reason: str | None = None

    def __post_init__(self) -> None:
        self.name, self.overrides = self.run.base, self.run.of_model
        self.folder = self.run.folder.parent / self.name

    @property
    def arguments(self) -> list[str]:
        """The arguments of launch/doctor.py, with the run's part of the sweep's budget."""
        own = [each for each in self.run.arguments if not each.startswith("budget.minutes=")]
        return [*own, f"budget.minutes={self.run.config.budget.seconds / 60}", "measure=signal"]

    @property
    def answer(self) -> Signal | None:
        return recall_signal(self.run.config)

    @property
    def finished(self) -> bool:
        return self.answer is not None

    @property
    def outcome(self) -> tuple[str, str | None] | None:
        """As of a run. The reason is the doctor's warning if training is not worth it."""
        return ("completed", self.answer.warning or None) if self.answer else None


@dataclass(eq=False)
class Exam:
    """An evaluation of the result of a run or, for `base-…`, of the base model of several.

    name: its folder's. run: for a base model, its first run. base: the base model's exam, whose samples are taken over.
    """

    program, kind = "evaluate", "exam"
    grid: "Grid"
    name: str
    run: SweepRun
    base: "Exam | None" = None
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
        own = [written("benchmarks", sweep.benchmarks), f"n={sweep.n}", f"device={config.device}", *UNLIMITED]
        own += [written("limit", self.grid.limit), f"{SEED}={self.grid.seed}"]
        if self.base:
            return [f"adapter={self.run.folder}", f"base={self.base.folder}", *own]
        own += [f"run.name={self.name}", f"model.dtype={config.model.dtype}"]
        replaced = ("budget", *(each.partition("=")[0] for each in own))
        return [*(each for each in self.run.arguments if not among(each.partition("=")[0], replaced)), *own]

    @property
    def finished(self) -> bool:
        """Whether its folder has all samples, with the sweep's seed and of the run's result."""
        document, result = EvaluationFolder(self.folder).document(), self.run.record.checkpoints.result
        if not document or document.status != "completed" or document.protocol.seed != self.grid.seed:
            return False
        if self.base and result and document.protocol.adapter_digest != digest(result / "adapter" / WEIGHTS_FILE):
            return False
        n, limit = self.grid.settings.n, self.grid.limit
        whole = [(limit, n, n), *([] if self.base else [(limit, n, None)])]
        measured = {
            each.name: (each.limit, each.base.n, each.adapter.n if each.adapter else None)
            for each in document.benchmarks
        }
        return all(measured.get(each.name) in whole for each in find_benchmarks(self.grid.settings.benchmarks))

    @property
    def outcome(self) -> tuple[str, str | None] | None:
        return ("completed", None) if self.finished else None

    @property
    def obstacle(self) -> tuple[str, str] | None:
        """Status and reason if it cannot take place, after its run and the base model's exam."""
        if self.base and not (self.run.finished and self.run.record.checkpoints.result):
            return "skipped", "its run has no checkpoint" if self.run.finished else f"its run is {self.run.status}"
        if self.base and not self.base.finished:
            return "failed", f"the exam of {self.base.name} is {self.base.status}: {self.base.reason}"
        return None


Job = SweepRun | Exam | Inquiry


@dataclass(frozen=True)
class Grid:
    """A sweep as it was requested.

    runs: seeds change slowest, so that a sweep cut short has compared something.
    folder: the parent of the runs' folders.
    plan: whether only the plan is requested. simulate: with it, numbers of GPUs.
    limit: most problems per benchmark of an exam.
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
        """The seed of all exams: that of the first run."""
        return self.runs[0].config.run.seed

    @property
    def inquiries(self) -> list[Inquiry]:
        return [*dict.fromkeys(run.inquiry for run in self.runs if run.inquiry)]

    @property
    def bases(self) -> list[Exam]:
        """The exams of the base models."""
        return [*dict.fromkeys(exam.base for run in self.runs for exam in run.exams if exam.base)]

    @property
    def exams(self) -> list[Exam]:
        return [exam for run in self.runs for exam in run.exams]

    def phases(self, workers: int) -> list[list[list[Job]]]:
        """Return the jobs of each worker, first those on base models, for which all runs wait, then runs and exams."""
        models: list[Job] = [*self.inquiries, *self.bases]
        pairs: list[list[Job]] = [[run, *run.exams] for run in self.runs]
        turns = range(workers)
        return [[models[turn::workers] for turn in turns], [[*chain(*pairs[turn::workers])] for turn in turns]]


def named(key: str, value: Any) -> str:
    """Return the part of a run's name that states its value on an axis."""
    text = value if isinstance(value, str) else json.dumps(value)
    if key in MODEL:
        text = text.rstrip("/").rpartition("/")[2].removeprefix("bundled:")
    start = SHORT.get(key, f"{key.rpartition('.')[2]}=")
    return start + re.sub(r"[^\w.+=@-]+", "_", text).strip("_")
