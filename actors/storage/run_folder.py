"""Writes a run folder, so that no half-written file is ever read."""

import json
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from microbudget_rl.actors.messages import AdapterRef, Group, ProblemSet
from microbudget_rl.actors.models.adapters import ADAPTER_FILES
from microbudget_rl.actors.storage import documents
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.actors.storage.files import (
    append_row,
    disk_trouble,
    drop_half_line,
    read_rows,
    replace_text,
    sync,
    write_document,
    write_rows,
)
from microbudget_rl.actors.storage.folders import delete, is_marked
from microbudget_rl.actors.storage.run_record import AT_END, RunRecord
from microbudget_rl.actors.tracking import Tracking
from microbudget_rl.actors.worker import Worker
from microbudget_rl.conf.errors import in_brief, without_credentials
from microbudget_rl.conf.load import RECORD


def adapters_of(run: Path) -> Path:
    """Return the folder of a run's published versions. In a Ray session that a run has started for itself, it is the
    session's temporary folder: the run folder's disk may be another machine's.
    """
    temporary = Path(tempfile.gettempdir())
    return (temporary if is_marked(temporary, "ray-session") else run) / "adapters"


class RunFolder(RunRecord):
    """The folder of a run that this process carries out. A coordinator calls `recover` before it writes anything.

    Beside an event loop, its methods return before their writes are done; `flush` waits for them. Loggers get all rows,
    under the names of metrics.jsonl.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.adapters = adapters_of(path)
        self.tracking = Tracking()
        self.writer = Worker("writer", strict=True)
        self._figures: tuple[float, documents.LedgerRecord | None] | None = None

    def recover(self, foreign: Callable[[Path], str | None] = lambda _: None, tracking: Tracking | None = None) -> None:
        """Clean up after another process: drop its final evaluations, and the rows of updates after the newest usable
        checkpoint.

        foreign: returns why an undamaged checkpoint is of another run, or None. tracking: the loggers. Raises BadInput
        if there are checkpoints, but none is usable.
        """
        for policy in AT_END:
            for file in (*self.path.glob(f"eval-{policy}*.json"), *self.path.glob(f"samples/eval-{policy}*.jsonl")):
                file.unlink()
        self.failure_log.unlink(missing_ok=True)
        for part in (self.path / "samples", self.checkpoints.folder, self.adapters):
            part.mkdir(parents=True, exist_ok=True)
        self.drop_adapters(keep=())
        self.drop_half_event()
        drop_half_line(self.path / "samples" / "warm-start.jsonl")
        (self.path / "events.jsonl").touch()
        for version, reason in self.checkpoints.recover(foreign).items():
            self.append_event(version, documents.EventKind.CHECKPOINT_REFUSED, reason)
        self.tracking = tracking or self.tracking
        self.cut_metrics()

    def drop_half_event(self) -> None:
        """Drop the half line that a killed process has left, before another event is added."""
        drop_half_line(self.path / "events.jsonl")

    def return_to(self, version: int) -> Path | None:
        """Drop everything after a version with a checkpoint, or after the start without one (0). Return the checkpoint.
        `checkpoints.clear` deletes the others.
        """
        self.checkpoints.return_to(version)
        self.writer.put(sync, self.checkpoints.folder)
        self.cut_metrics()
        return self.checkpoints.latest

    def cut_metrics(self) -> None:
        """Drop half rows and those after the newest checkpoint. Call it once the rows are on disk."""
        version = version_of(self.checkpoints.latest) if self.checkpoints.latest else 0
        for file, read in ((self.metrics, self.rows), (self.solved_file, self.solved)):
            if file.exists():
                self.writer.put(write_rows, file, [row for row in read() if row.update <= version])
        self.tracking.begin(version + 1)

    def drop_adapters(self, keep: tuple[AdapterRef, ...]) -> None:
        """Delete all published versions but these. Files that are not ours stay."""
        names = {adapter.name for adapter in keep}
        for folder in self.adapters.iterdir() if self.adapters.exists() else ():
            if folder.name not in names:
                delete(folder, ADAPTER_FILES)

    def write_config(self, text: str, problems: ProblemSet) -> None:
        """Write the settings and what tells the problems apart; delete an earlier process's summary."""
        replace_text(self.path / "problems.digest", json.dumps(problems.digests))
        if problems.selection:
            chose = {problem.id: (problem.text, problem.gold) for problem in problems.selection}
            replace_text(self.path / "selection.json", json.dumps(chose))
        replace_text(self.path / RECORD, text)
        if self.identity() is None:
            replace_text(self.path / "identity.json", json.dumps(uuid.uuid4().hex))
        (self.path / "summary.json").unlink(missing_ok=True)

    def write_origin(self, origin: documents.Origin) -> None:
        write_document(self.path / "origin.json", origin)

    def write_spent(self, seconds: float, ledger: documents.LedgerRecord | None = None) -> None:
        """Write the seconds used so far and, once there is one, the ledger: now or, if the disk is slow, by `flush`."""
        self._figures = seconds, ledger
        if self.writer.idle:
            self.writer.put(self._write_spent)

    def _write_spent(self) -> None:
        if self._figures is None:
            return
        seconds, ledger = self._figures
        if ledger is not None:
            write_document(self.path / "ledger.json", ledger)
        write_document(self.path / "spent.json", documents.Spent(spent_s=seconds))

    async def next_incarnation(self) -> int:
        """Count a restore of the weights, and return its number."""

        def count() -> int:
            number = 1 + self.incarnation()
            replace_text(self.path / "incarnation.json", json.dumps(number))
            return number

        return await self.writer.in_turn(count)

    def append_event(self, update: int, kind: documents.EventKind, detail: str, subject: str = "") -> None:
        event = documents.Event.of(kind, subject, update=update, detail=detail)
        self.writer.put(append_row, self.path / "events.jsonl", event)

    def append_metrics(self, update: int, metrics: dict[str, float]) -> dict[str, float]:
        """Write the row of an update. Return its metrics, with `update` and `version`."""
        row = documents.MetricsRow.model_validate({"update": update, "version": update, **metrics})
        self.writer.put(append_row, self.metrics, row)
        self.tracking.scalars(update, row.metrics)
        return row.metrics

    def append_solved(self, update: int, right: dict[str, float], validation: bool = False) -> None:
        row = documents.SolvedRow(update=update, right=right, validation=validation)
        self.writer.put(append_row, self.solved_file, row)

    def extend_metrics(self, version: int, more: dict[str, float]) -> list[dict[str, float]]:
        """Add metrics, if any, to the last version's row. Return those of all. Call it once the rows are on disk.

        If the end of the budget has cut that row off, the metrics are returned and not written.
        """
        file, rows_before = self.metrics if version else self.start_metrics, self.scored()
        if more:
            rows = read_rows(file, documents.MetricsRow)
            if version and not (rows and rows[-1].update == version):
                return [*rows_before, {"update": version, **more}]
            last = rows[-1].content if rows else {"update": version}
            rows[-1:] = [documents.MetricsRow.model_validate({**last, **more})]
            self.writer.put(write_rows, file, rows)
            self.tracking.scalars(version, more)
            rows_before = [row for row in rows_before if row["update"] < version] + [rows[-1].metrics]
        return rows_before

    def append_candidates(self, samples: Sequence[documents.SampleRow]) -> None:
        """Write the samples of some candidates of the warm start."""
        self.writer.put(append_row, self.path / "samples" / "warm-start.jsonl", *samples)

    async def flush(self) -> None:
        """Return once all writes and the names of new files are on disk, so that no checkpoint outlasts its history.

        Raises the error of a write that has failed.
        """
        self.writer.put(self._write_spent)
        for path in (self.path / "samples", self.checkpoints.folder, self.path):
            self.writer.put(sync, path)
        await self.writer.in_turn(self.writer.check)

    def write_evaluation(self, name: str, version: int, evaluation: documents.PolicyScores) -> documents.PolicyScores:
        """Write a version's evaluation, pass its figures to the loggers, and return it. name: see `named`."""
        group = "/".join(filter(None, ("eval", name.partition("-")[2])))
        self.writer.put(write_document, self.path / f"eval-{name}.json", evaluation)
        self.tracking.scalars(version, {f"{group}/{key}": value for key, value in evaluation.figures.items()})
        return evaluation

    def write_reference_set(self, responses: list[list[int]]) -> None:
        """Write the reference set: responses of the base model as token ids."""
        self.writer.put(replace_text, self.path / "reference_set.json", json.dumps(responses))

    def write_samples(self, name: str, groups: tuple[Group, ...]) -> None:
        """Write the samples of groups as `write_rows` does."""
        self.write_rows(name, [sample_row(group, number) for group in groups for number in range(len(group.samples))])

    def write_rows(self, name: str, rows: Sequence[documents.SampleRow]) -> None:
        """Write samples/<name>.jsonl: prompts, responses and rewards."""
        self.writer.put(write_rows, self.path / "samples" / f"{name}.jsonl", rows)
        if rows:
            self.tracking.samples(name, rows[0].version or 0, [row.content for row in rows])

    def write_ending(self, summary: documents.RunSummary, failure: str = "") -> documents.RunSummary:
        """Write summary.json, spent.json, ledger.json and failure.log at once. Return the summary: with status "halted"
        if the disk fails, so that the driver can report it.

        failure: the whole text of the error that ended the run.
        """
        try:
            self._figures = summary.spent_s, summary.ledger
            self._write_spent()
            if failure:
                self.failure_log.write_text(without_credentials(failure))
            write_document(self.path / "summary.json", summary)
        except OSError as error:
            if summary.status == "halted":
                return summary
            reason = f"{summary.reason}; {disk_trouble(self.path, error) or in_brief(error)}"
            return summary.model_copy(update={"status": "halted", "reason": reason})
        return summary


def sample_row(group: Group, number: int) -> documents.SampleRow:
    """Return the row of a verified sample of a group."""
    sample, reward = group.samples[number], group.rewards[number]
    row = documents.SampleRow(
        group=group.index,
        problem=group.problem.id,
        prompt=group.problem.prompt,
        gold=group.problem.gold,
        version=group.adapter.version if group.adapter else None,
        response=sample.text,
        tokens=len(sample.token_ids),
        finish_reason=sample.finish_reason,
        reward=reward.total,
        status=reward.verdict.status,
        failure="; ".join(map(str, reward.complaints)) or reward.failure,
        extracted=reward.verdict.extracted,
    )
    seldom = {"partial": reward.partial, "given": [*map(list, sample.given)]}
    return row.model_copy(update={name: value for name, value in seldom.items() if value})
