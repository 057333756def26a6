"""The exams of a sweep: evaluations of its base models and of its runs' results on its benchmarks."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from actors.evaluation.folder import EvaluationFolder
from actors.storage.documents import BenchmarkResult
from conf.catalogue import find_benchmarks
from conf.errors import BadInput
from conf.schema import among
from conf.schema.run import YEAR_H
from launch.sweep_runs.grid import MODEL, SEED, Grid, SweepRun, named

BASE = "base"
"""Name of the folder of a base model's exam, or its beginning."""

UNLIMITED = (f"budget.hours={YEAR_H}", "budget.minutes=null")
"""Arguments of an exam: it ends with its last sample."""


@dataclass(eq=False)
class Exam:
    """An evaluation on the benchmarks of a sweep.

    name: of the folder that holds it, which is the run's or, for a base model, begins with BASE.
    run: the run whose result is evaluated; for a base model, its first run.
    base: the exam of the run's base model, whose samples are taken over; None for that exam itself.
    status, reason: as in sweep.json.
    """

    program: ClassVar = "evaluate"
    grid: Grid
    name: str
    run: SweepRun
    base: "Exam | None" = None
    status: str = "pending"
    reason: str | None = None

    @property
    def folder(self) -> Path:
        return self.grid.folder / self.name / "evaluation"

    @property
    def finished(self) -> bool:
        return self.status == "completed"

    @property
    def overrides(self) -> dict[str, Any]:
        """The run's values on the axes that change the model."""
        return {key: value for key, value in self.run.overrides.items() if key in MODEL}

    @property
    def arguments(self) -> list[str]:
        """The arguments of `launch/evaluate.py`. All exams of a sweep have the seed of its first run."""
        sweep, config = self.grid.settings, self.run.config
        own = [f"benchmarks={json.dumps(sweep.benchmarks)}", f"n={sweep.n}", f"device={config.device}", *UNLIMITED]
        own += [] if self.grid.limit is None else [f"limit={self.grid.limit}"]
        own += [f"{SEED}={self.grid.runs[0].config.run.seed}"]
        if self.base:
            return [f"adapter={result_of(self.run)}", f"base={self.base.folder}", *own]
        own += [f"run.name={self.name}", f"model.dtype={config.model.dtype}"]
        other = ("budget", "plan", "simulate", *(each.partition("=")[0] for each in own))
        return [*(each for each in self.run.arguments if not among(each.partition("=")[0], other)), *own]

    @property
    def complete(self) -> bool:
        """Whether all its samples are there."""
        document, sweep = EvaluationFolder(self.folder).document(), self.grid.settings
        found = {each.name: each for each in document.benchmarks} if document else {}
        names = [each.name for each in find_benchmarks(sweep.benchmarks)]
        return document is not None and document.status == "completed" and all(self._has(found.get(x)) for x in names)

    def _has(self, result: BenchmarkResult | None) -> bool:
        policies = [] if result is None else [result.base, result.adapter] if self.base else [result.base]
        limited = result is not None and result.limit == self.grid.limit
        return limited and all(each is not None and each.n == self.grid.settings.n for each in policies)

    def look_back(self) -> None:
        """Take the status of a complete exam from its folder."""
        if self.complete:
            self.status, self.reason = "completed", None

    def stated(self, code: int, status: str) -> tuple[str, str | None] | None:
        """Return status and reason after the process has ended, see `SweepRun.stated`."""
        return ("completed", None) if code == 0 and self.complete else None

    @property
    def obstacle(self) -> tuple[str, str] | None:
        """Status and reason of an exam that cannot take place after its run and base; None if it can."""
        if self.base and not self.run.finished:
            return "skipped", f"its run is {self.run.status}"
        if self.base and not self.base.finished:
            return "failed", f"the exam of {self.base.name} is {self.base.status}: {self.base.reason}"
        return None


Job = SweepRun | Exam


def result_of(run: SweepRun) -> Path:
    """Return the checkpoint that is the result of a finished run."""
    checkpoints = run.record.checkpoints.folder
    return checkpoints / ("best" if os.path.lexists(checkpoints / "best") else "latest")


@dataclass(frozen=True)
class Exams:
    """All exams of a sweep, none without benchmarks. bases: one per model. of_run: one per run, by its name."""

    bases: tuple[Exam, ...]
    of_run: dict[str, Exam]

    @classmethod
    def of(cls, grid: Grid) -> "Exams":
        """Raises BadInput if a run has the name of a base model's folder."""
        bases: dict[str, Exam] = {}
        of_run = {}
        for run in grid.runs if grid.settings.benchmarks else ():
            name = "-".join([BASE, *(named(key, value) for key, value in run.overrides.items() if key in MODEL)])
            base = bases.setdefault(name, Exam(grid, name, run))
            of_run[run.name] = Exam(grid, run.name, run, base)
        if taken := bases.keys() & of_run.keys():
            raise BadInput(f"a run and the exam of a base model would both be named {taken.pop()}: rename the model")
        return cls(tuple(bases.values()), of_run)

    @property
    def all(self) -> tuple[Exam, ...]:
        return (*self.bases, *self.of_run.values())

    def with_runs(self, runs: Iterable[SweepRun]) -> list[Job]:
        """Return the jobs of a lane with these runs: each run before its exam, a base before its first run."""
        jobs: list[Job] = []
        for run in runs:
            jobs += [base for base in self.bases if base.run is run]
            jobs += [run, *([self.of_run[run.name]] if run.name in self.of_run else [])]
        return jobs
