"""Reads a run folder. Nothing here changes anything on disk, so that a running run may be read."""

import math
import os
from itertools import chain
from pathlib import Path

from microbudget_rl.actors.storage import documents
from microbudget_rl.actors.storage.checkpoints import Checkpoints, read_state
from microbudget_rl.actors.storage.files import REMEDY, read_document, read_optional, read_rows
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import RECORD, read_record
from microbudget_rl.conf.schema import Config

FINISHED = ("completed", "budget_exhausted")
"""Statuses of a finished run, which only a larger budget resumes."""

AT_END = ("final", "last")
"""Policies that are evaluated at the end of a process: the result, and the last version if that is another."""

BEHIND = 0.5
"""Fraction of the planned updates below which a run is far behind its plan."""


def named(policy: str, benchmark: str) -> str:
    """Return the name of a policy's evaluation. benchmark: empty for the held-out problems."""
    return f"{policy}-{benchmark}" if benchmark else policy


def sample_file(folder: Path, evaluation: str) -> Path:
    """Return the samples of an evaluation, see `named`, in the folder of a run or of launch/evaluate.py."""
    return folder / "samples" / f"eval-{evaluation}.jsonl"


class RunRecord:
    """The files of a run folder. Each method returns None, or an empty value, for a file that is not there.

    All raise BadInput for a damaged file.
    evaluation_folder: launch/evaluate.py's, which may exist before the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.solved_file = path / "solved.jsonl"
        self.failure_log = path / "failure.log"
        self.report = path / "report.html"
        self.checkpoints = Checkpoints(path / "checkpoints")
        self.start_metrics = path / "validation-0.json"
        self.filtered_file = path / "problems-left-out.jsonl"
        self.evaluation_folder = path / "evaluation"

    @property
    def exists(self) -> bool:
        """Whether there is a run in the folder."""
        return os.path.lexists(self.path / RECORD)

    def config(self) -> Config:
        """Return the settings of the run."""
        return read_record(self.path / RECORD)

    def origin(self) -> documents.Origin:
        return read_document(self.path / "origin.json", documents.Origin) or documents.Origin()

    def summary(self) -> documents.RunSummary | None:
        """Return summary.json; None until the run has ended."""
        return read_document(self.path / "summary.json", documents.RunSummary)

    def finished(self) -> documents.RunSummary | None:
        """Return summary.json of a finished run; None for any other."""
        summary = self.summary()
        return summary if summary and summary.status in FINISHED else None

    def rows(self) -> list[documents.MetricsRow]:
        return read_rows(self.metrics, documents.MetricsRow)

    def solved(self) -> list[documents.SolvedRow]:
        return read_rows(self.solved_file, documents.SolvedRow)

    def scored(self, until: float = math.inf) -> list[dict[str, float]]:
        """Return the metrics of all versions that may be the result, up to one: of version 0 if it was validated."""
        rows = read_rows(self.start_metrics, documents.MetricsRow) + self.rows()
        return [row.metrics for row in rows if row.update <= until]

    @property
    def updates(self) -> int:
        """Number of rows in metrics.jsonl, counted without reading them."""
        return self.metrics.read_bytes().count(b"\n") if self.metrics.is_file() else 0

    def events(self) -> list[documents.Event]:
        """Return all events of the run so far, over its resumes."""
        return read_rows(self.path / "events.jsonl", documents.Event)

    @property
    def spent(self) -> float:
        """Seconds that all processes of the run have used so far."""
        spent = read_document(self.path / "spent.json", documents.Spent)
        return spent.spent_s if spent else 0.0

    def ledger(self) -> documents.LedgerRecord | None:
        return read_document(self.path / "ledger.json", documents.LedgerRecord)

    def identity(self) -> str | None:
        """Return the id of the run, which no other run has and every resume keeps, wherever the folder is."""
        return read_optional(self.path / "identity.json", documents.Digest | None)

    def incarnation(self) -> int:
        """Return how often weights were restored."""
        return int(read_optional(self.path / "incarnation.json", documents.Count) or 0)

    def evaluation(self, name: str) -> documents.PolicyScores | None:
        """Return an evaluation by its name, see `named`, of `base`, `warm`, `final` or `last`."""
        return read_document(self.path / f"eval-{name}.json", documents.PolicyScores)

    def tried(self, name: str) -> bool:
        """Whether an evaluation was made, or left an empty file of samples because its time was too short."""
        file = sample_file(self.path, name)
        return self.evaluation(name) is not None or (file.is_file() and not file.stat().st_size)

    def scores(self, policy: str) -> dict[str, documents.PolicyScores]:
        """Return a policy's evaluations by the benchmark's name, those on the held-out problems first."""
        others = sorted(file.stem.removeprefix(f"eval-{policy}-") for file in self.path.glob(f"eval-{policy}-*.json"))
        evaluations = {name: self.evaluation(named(policy, name)) for name in ("", *others)}
        return {name: scores for name, scores in evaluations.items() if scores}

    def evaluations(self) -> documents.Evaluations:
        """Return all evaluations of the run."""
        by_policy = {policy: self.scores(policy) for policy in ("base", "warm", *AT_END)}
        by_problems = {
            name: {key: each[name] for key, each in by_policy.items() if name in each}
            for name in chain(*by_policy.values())
        }
        held_out = {"base": None, **dict.fromkeys(AT_END), **by_problems.pop("", {})}
        return documents.Evaluations.model_validate(
            {**held_out, **({"benchmarks": by_problems} if by_problems else {})}
        )

    def reference_set(self) -> list[list[int]] | None:
        """Return the reference set: responses of the base model as token ids."""
        return read_optional(self.path / "reference_set.json", list[list[documents.Count]])

    def samples(self, name: str) -> list[documents.SampleRow]:
        """Return the samples of `eval-POLICY`, of the `warm-start`, or of an update as `sampled` names it."""
        return read_rows(self.path / "samples" / f"{name}.jsonl", documents.SampleRow)

    def sampled(self, kind: str) -> list[str]:
        """Return the names of the samples of a kind, `update` or `eval`, updates in order."""
        names = (file.stem for file in (self.path / "samples").glob(f"{kind}-*.jsonl"))
        return sorted(names, key=lambda name: (len(name), name))

    def filtered(self) -> list[documents.FilteredProblem]:
        """Return the problems that the run does not use, or uses in spite of the reason given."""
        return read_rows(self.filtered_file, documents.FilteredProblem)

    def selection(self) -> dict[str, list[str]]:
        """Return text and reference answer of the problems that choose the run's result, by id."""
        return read_optional(self.path / "selection.json", dict[str, list[str]]) or {}

    def problem_digests(self) -> dict[str, str] | None:
        """Return the digests of the problems that the run began with, see `ProblemSet`."""
        digests: dict[str, str] | None = read_optional(self.path / "problems.digest", dict[str, str])
        return digests

    def check(self) -> None:
        """Raise BadInput if a resume would read a damaged file, or if a folder is in the place of a file or the other
        way round.
        """
        for path in (self.checkpoints.folder, *map(self.path.joinpath, ("adapters", "samples", "tensorboard"))):
            if os.path.lexists(path) and not path.is_dir():
                raise BadInput(f"{path} is not a folder; {REMEDY}")
        for path in (self.report, self.filtered_file, self.failure_log, self.path / "origin.json"):
            if path.is_dir():
                raise BadInput(f"{path} is a folder, not a file; {REMEDY}")
        others = (self.incarnation, self.identity, self.reference_set, self.problem_digests, self.selection)
        for read in (self.config, self.origin, self.summary, self.scored, self.events, self.ledger, *others):
            read()
        self.evaluations()
        self.samples("warm-start")
        for checkpoint in filter(None, (self.checkpoints.latest, self.checkpoints.best)):
            read_state(checkpoint)
