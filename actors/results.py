"""The one record of what a run or an evaluation has left in its folder, read by all that comes after."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from microbudget_rl.actors.evaluation.folder import EvaluationFolder
from microbudget_rl.actors.evaluation.statistics import means
from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.storage import documents
from microbudget_rl.actors.storage.files import read_rows
from microbudget_rl.actors.storage.run_record import RunRecord, named, sample_file
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import flatten, recorded

UNFINISHED = documents.RunSummary(status="unfinished")

Settings = dict[str, Any]
"""Settings by dotted key."""


@dataclass(frozen=True)
class Results:
    """What a run or an evaluation has left in a folder, alone or in a sweep.

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
        return int(self.config.get("run.seed") or 0)

    @property
    def eval(self) -> documents.Evaluations:
        return self.summary.eval

    @property
    def start(self) -> str:
        """What has made version 0 another policy than the base model."""
        names = {"lora.start_from": "start adapter", "warm_start.source": "warm start"}
        return " and ".join(name for key, name in names.items() if self.config.get(key))

    @property
    def record(self) -> RunRecord:
        return RunRecord(self.folder)

    def evaluated(self, policy: str, benchmark: str) -> list[documents.EvaluatedSample]:
        """Return the samples of `evaluation`. policy: base or adapter."""
        file = sample_file(self.record.evaluation_folder, named(policy, benchmark))
        return read_rows(file, documents.EvaluatedSample)

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


def find_run(folder: Path) -> RunRecord:
    """Return the files of the run in a folder. Raises BadInput if there is none."""
    if recorded(folder) is None:
        raise BadInput(f"{folder} is not the folder of a run: name one with a config.yaml, such as runs/quickstart")
    return RunRecord(folder)


def read_run(folder: Path) -> Results:
    """Read a run folder. Raises BadInput if it is not one, or if a file in it is damaged."""
    record = find_run(folder)
    config = flatten(asdict(record.config()))
    if (summary := record.summary()) is None:
        known = {"eval": record.evaluations(), "spent_s": record.spent}
        summary = UNFINISHED.model_copy(update=known | {"ledger": record.ledger() or UNFINISHED.ledger})
    return Results(
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
