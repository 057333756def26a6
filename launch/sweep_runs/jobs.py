"""The exams of a sweep: evaluations of base models, and of the results of runs, on the sweep's benchmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from actors.evaluation.folder import EvaluationFolder
from actors.models.adapters import WEIGHTS_FILE
from actors.storage.files import digest
from conf.catalogue import find_benchmarks
from conf.errors import BadInput
from conf.load import written
from conf.schema import among
from conf.schema.run import YEAR_H
from launch.sweep_runs.grid import SEED, Grid, Inquiry, SweepRun

UNLIMITED = (f"budget.hours={YEAR_H}", "budget.minutes=null")
"""Arguments of an exam: it ends with its last sample."""


@dataclass(eq=False)
class Exam:
    """An evaluation of the result of a run or, for `base-…`, of the base model of several.

    name: its folder's. run: for a base model, its first run. base: the base model's exam, whose samples are taken over.
    """

    program, kind = "evaluate", "exam"
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
    def overrides(self) -> dict[str, Any]:
        return self.run.of_model

    @property
    def arguments(self) -> list[str]:
        """The arguments of launch/evaluate.py. All exams of a sweep have the seed of its first run."""
        sweep, config = self.grid.settings, self.run.config
        own = [written("benchmarks", sweep.benchmarks), f"n={sweep.n}", f"device={config.device}", *UNLIMITED]
        own += [written("limit", self.grid.limit), f"{SEED}={self.grid.runs[0].config.run.seed}"]
        if self.base:
            return [f"adapter={self.run.folder}", f"base={self.base.folder}", *own]
        own += [f"run.name={self.name}", f"model.dtype={config.model.dtype}"]
        replaced = ("budget", *(each.partition("=")[0] for each in own))
        return [*(each for each in self.run.arguments if not among(each.partition("=")[0], replaced)), *own]

    @property
    def mismatched(self) -> bool:
        """Whether its folder has an evaluation with another seed, or of another adapter than the run's result."""
        document, result = EvaluationFolder(self.folder).document(), self.run.record.checkpoints.result
        if document is None or document.protocol.seed != self.grid.runs[0].config.run.seed:
            return document is not None
        measured = document.protocol.adapter_digest if self.base else None
        return measured is not None and (not result or measured != digest(result / "adapter" / WEIGHTS_FILE))

    @property
    def finished(self) -> bool:
        """Whether all its samples are there."""
        n, document = self.grid.settings.n, EvaluationFolder(self.folder).document()
        measured = {
            each.name: (each.limit, each.base.n, each.adapter.n if each.adapter else None)
            for each in (document.benchmarks if document and document.status == "completed" else ())
        }
        whole = [(self.grid.limit, n, n), *([] if self.base else [(self.grid.limit, n, None)])]
        found = all(measured.get(each.name) in whole for each in find_benchmarks(self.grid.settings.benchmarks))
        return found and not self.mismatched

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
        if self.mismatched:
            return "failed", f"{self.folder} is of another policy or seed: move it away"
        return None


Job = SweepRun | Exam | Inquiry


def exams_of(grid: Grid) -> tuple[list[Exam], dict[str, Exam]]:
    """Return the exams of the base models, and those of the runs by name; none without benchmarks.

    Raises BadInput if a run has the name of a base model's folder.
    """
    bases: dict[str, Exam] = {}
    of_runs: dict[str, Exam] = {}
    for run in grid.runs if grid.settings.benchmarks else ():
        of_runs[run.name] = Exam(grid, run.name, run, bases.setdefault(run.base, Exam(grid, run.base, run)))
    if taken := bases.keys() & of_runs.keys():
        raise BadInput(f"a run and the exam of a base model would both be named {taken.pop()}: rename the model")
    return [*bases.values()], of_runs


def phases(grid: Grid, bases: Sequence[Exam], exams: Mapping[str, Exam], workers: int) -> list[list[list[Job]]]:
    """Return the jobs of each worker, first those on base models, for which all runs wait, then runs and exams."""
    models: list[Job] = [*grid.inquiries, *bases]
    pairs = [[job for job in (run, exams.get(run.name)) if job] for run in grid.runs]
    turns = range(workers)
    return [[models[turn::workers] for turn in turns], [[*chain(*pairs[turn::workers])] for turn in turns]]
