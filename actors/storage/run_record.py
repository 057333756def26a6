"""Reading a run folder. Nothing here changes anything on disk, so a run that goes on may be read."""

import os
from pathlib import Path
from typing import Any

from actors.storage import contents
from actors.storage.checkpoints import Checkpoints, read_state
from actors.storage.files import REMEDY, read_json, read_rows
from conf.departed import ledger_today, metrics_today
from conf.documents import read_text
from conf.errors import BadInput
from conf.load import RECORD, read_record

Row = dict[str, Any]

FINISHED = ("completed", "budget_exhausted")
"""Statuses of a run that cannot be resumed."""


class RunRecord:
    """The files of a run folder, as far as they are there. Raises BadInput where one of them is damaged.

    adapters: where the learner publishes versions.
    evaluation_folder: what launch/evaluate.py writes, which may be there before the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.adapters = path / "adapters"
        self.failure_log = path / "failure.log"
        self.report = path / "report.html"
        self.checkpoints = Checkpoints(path / "checkpoints")
        self.left_out_file = path / "problems-left-out.jsonl"
        self.evaluation_folder = path / "evaluation"

    @property
    def exists(self) -> bool:
        """Whether the folder is that of a run."""
        return os.path.lexists(self.path / RECORD)

    def config(self) -> Row:
        """Return the settings of the run as nested mappings."""
        return read_record(self.path / RECORD)

    def origin(self) -> Row:
        """Return where the run comes from: command, commit, started, machine, planned; empty if it was not kept."""
        return read_json(self.path / "origin.json", contents.Origin) or {}

    def summary(self) -> Row | None:
        """Return summary.json; None until the run has ended."""
        summary: Row | None = read_json(self.path / "summary.json", contents.Summary)
        if summary and summary.get("ledger"):
            summary["ledger"] = ledger_today(summary["ledger"])
        return summary

    def finished(self) -> Row | None:
        """Return summary.json of a run that cannot be resumed; None of any other."""
        summary = self.summary()
        return summary if summary and summary["status"] in FINISHED else None

    def rows(self) -> list[dict[str, float]]:
        """Return the rows of metrics.jsonl, one an update."""
        return [metrics_today(row) for row in read_rows(self.metrics, contents.Metrics)]

    def events(self) -> list[Row]:
        """Return all events of the run so far, over its resumes: update, event and detail of each."""
        return read_rows(self.path / "events.jsonl", contents.Event)

    @property
    def spent(self) -> float:
        """Seconds that all processes of the run have used so far."""
        return float((read_json(self.path / "spent.json", contents.Spent) or {"spent_s": 0.0})["spent_s"])

    def ledger(self) -> Row | None:
        """Return the ledger as it was last written."""
        return ledger_today(read_json(self.path / "ledger.json", contents.Ledger))

    def identity(self) -> str | None:
        """Return what no other run is called, over all resumes and wherever the folder is; None before the start."""
        return read_json(self.path / "identity.json", contents.Digest | None)

    def incarnation(self) -> int:
        """Return how often weights were restored."""
        return int(read_json(self.path / "incarnation.json", contents.Count) or 0)

    def evaluation(self, name: str) -> Row | None:
        """Return the summary of a held-out evaluation, `base` or `final`."""
        return read_json(self.path / f"eval-{name}.json", contents.Heldout | None)

    def probe(self) -> list[list[int]] | None:
        """Return the base model's responses on which plasticity is measured, as token ids."""
        return read_json(self.path / "probe.json", list[list[contents.Count]])

    def samples(self, name: str) -> list[Row]:
        """Return the samples of `eval-base`, `eval-final`, or an update as `sampled_updates` names it."""
        return read_rows(self.path / "samples" / f"{name}.jsonl", contents.Sample)

    def sampled_updates(self) -> list[str]:
        """Return the names of the updates with samples, in order."""
        return sorted(file.stem for file in (self.path / "samples").glob("update-*.jsonl"))

    def left_out(self) -> list[Row]:
        """Return the problems that the run does not use, or uses in spite of the reason given."""
        return read_rows(self.left_out_file, contents.LeftOutRow)

    def problems_digest(self) -> str | None:
        """Return the digest of the problems that the run was begun with."""
        file = self.path / "problems.digest"
        return read_text(file, REMEDY) if os.path.lexists(file) else None

    def check(self) -> None:
        """Raise BadInput if a file is damaged that a process which goes on with the run would read, or if a folder is
        in the place of a file, or the other way round.
        """
        for path in (self.checkpoints.folder, self.adapters, self.path / "samples", self.path / "tensorboard"):
            if os.path.lexists(path) and not path.is_dir():
                raise BadInput(f"{path} is no folder; {REMEDY}")
        for path in (self.report, self.left_out_file, self.failure_log, self.path / "origin.json"):
            if path.is_dir():
                raise BadInput(f"{path} is a folder and no file; {REMEDY}")
        for read in (
            self.config,
            self.summary,
            self.rows,
            self.events,
            self.ledger,
            self.incarnation,
            self.identity,
            self.probe,
        ):
            read()
        self.evaluation("base")
        self.problems_digest()
        for checkpoint in filter(None, (self.checkpoints.latest, self.checkpoints.best)):
            read_state(checkpoint)

    def benchmarks(self) -> Row | None:
        """Return the document that launch/evaluate.py has written about the run."""
        return read_json(self.evaluation_folder / "evaluation.json", contents.Evaluated)
