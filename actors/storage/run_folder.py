"""Writing a run folder, so that no half-written file is ever read."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.messages import AdapterRef, Group
from actors.storage.checkpoints import version_of
from actors.storage.files import append_row, drop_half_line, replace_text, sync
from actors.storage.folders import discard
from actors.storage.layout import ADAPTER
from actors.storage.run_record import RunRecord
from actors.tracking.tracking import Tracking
from conf.load import RECORD

SAMPLED_GROUPS = 8
"""Groups of an update whose samples are kept; long responses would otherwise fill the disk in a day."""


class RunFolder(RunRecord):
    """The folder of a run that this process carries out. Call `recover` before anything is written by a coordinator.

    The same names are used in metrics.jsonl and by trackers.
    """

    tracking = Tracking()

    def recover(self, foreign: Callable[[Path], str | None] = lambda _: None, tracking: Tracking | None = None) -> None:
        """Clean up after a dead process, and drop the rows of updates after the newest good checkpoint.

        foreign: why an undamaged checkpoint is not this run's; None if it is. tracking: is shown what is written.
        Raises BadInput if there are checkpoints, but none to go on from.
        """
        (self.path / "failure.log").unlink(missing_ok=True)
        for part in (self.path / "samples", self.checkpoints.folder, self.adapters):
            part.mkdir(parents=True, exist_ok=True)
        self.drop_adapters(keep=())
        self.drop_half_event()
        (self.path / "events.jsonl").touch()
        for version, reason in self.checkpoints.recover(foreign).items():
            self.append_event(version, "checkpoint refused", reason)
        self.tracking = tracking or self.tracking
        self.tracking.begin(self.cut_metrics())

    def drop_half_event(self) -> None:
        """Drop what a process that died amid a line has left, before there are further events."""
        drop_half_line(self.path / "events.jsonl")

    def return_to(self, version: int) -> Path | None:
        """Forget all that came after a version with a checkpoint, or after the start (0). Return the checkpoint."""
        self.checkpoints.return_to(version)
        self.tracking.begin(self.cut_metrics())
        return self.checkpoints.latest

    def cut_metrics(self) -> int:
        """Drop the rows of updates after the newest checkpoint, and a half-written one. Return the next update."""
        version = version_of(self.checkpoints.latest) if self.checkpoints.latest else 0
        rows = [json.dumps(row) + "\n" for row in self.rows() if row["update"] <= version]
        if self.metrics.exists():
            replace_text(self.metrics, "".join(rows))
        return version + 1

    def drop_adapters(self, keep: tuple[AdapterRef, ...]) -> None:
        """Delete all published versions but these, and but what is not ours."""
        names = {adapter.name for adapter in keep}
        for folder in self.adapters.iterdir() if self.adapters.exists() else ():
            if folder.name not in names:
                discard(folder, ADAPTER)

    def write_config(self, text: str, problems_digest: str) -> None:
        """Write what the run is: its settings as YAML and its problems. The summary of an earlier process goes."""
        replace_text(self.path / "problems.digest", problems_digest)
        replace_text(self.path / RECORD, text)
        if self.identity() is None:
            replace_text(self.path / "identity.json", json.dumps(uuid.uuid4().hex))
        (self.path / "summary.json").unlink(missing_ok=True)

    def write_origin(self, origin: dict[str, Any]) -> None:
        """Keep where the run comes from."""
        replace_text(self.path / "origin.json", json.dumps(origin, indent=2) + "\n")

    def write_spent(self, seconds: float, ledger: dict[str, Any] | None = None) -> None:
        """Keep what the run has used of its budget, and what for unless there is no coordinator yet that knows."""
        if ledger is not None:
            replace_text(self.path / "ledger.json", json.dumps(ledger))
        replace_text(self.path / "spent.json", json.dumps({"spent_s": seconds}))

    def next_incarnation(self) -> int:
        """Return a number for a restore of the weights that no earlier one has used."""
        number = 1 + self.incarnation()
        replace_text(self.path / "incarnation.json", json.dumps(number))
        return number

    def append_event(self, update: int, event: str, detail: str) -> None:
        """Write down what happened to a run beside its updates."""
        append_row(self.path / "events.jsonl", {"update": update, "event": event, "detail": detail})

    def append_metrics(self, update: int, row: dict[str, float]) -> dict[str, float]:
        """Write the row of one update. Return the row as written."""
        row = {"update": update, "version": update, **row}
        append_row(self.metrics, row)
        self.tracking.scalars(update, row)
        return row

    def flush(self) -> None:
        """Flush the names of new files to disk: a checkpoint must not outlast the history behind it."""
        for path in (self.path / "samples", self.path):
            sync(path)

    def write_evaluation(self, name: str, version: int, summary: dict[str, Any]) -> dict[str, Any]:
        """Keep the evaluation of a version and have trackers show it beside the rows' figures of the same names.

        Return the summary given.
        """
        replace_text(self.path / f"eval-{name}.json", json.dumps(summary))
        figures = {key: value for key, value in summary.items() if isinstance(value, float)}
        self.tracking.scalars(version, {key if "/" in key else f"eval/{key}": value for key, value in figures.items()})
        return summary

    def write_probe(self, responses: list[list[int]]) -> None:
        """Keep the base model's responses on which plasticity is measured, as token ids."""
        replace_text(self.path / "probe.json", json.dumps(responses))

    def write_samples(self, name: str, groups: tuple[Group, ...]) -> None:
        """Keep what was said, and what it earned, in samples/<name>.jsonl."""
        kept = groups if name.startswith(("eval", "skipped")) else groups[:SAMPLED_GROUPS]
        rows = [sample_row(group, number) for group in kept for number in range(len(group.samples))]
        replace_text(self.path / "samples" / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        self.tracking.samples(name, rows[0]["version"] or 0, rows)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json, which ends the run."""
        replace_text(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def write_failure(self, text: str) -> None:
        """Keep the whole error that ended the run."""
        self.failure_log.write_text(text)


def sample_row(group: Group, number: int) -> dict[str, Any]:
    """Return a line of samples/*.jsonl: one verified sample of a group."""
    sample, reward = group.samples[number], group.rewards[number]
    return {
        "group": group.index,
        "problem": group.problem.id,
        "prompt": group.problem.prompt,
        "gold": group.problem.gold,
        "version": group.adapter.version if group.adapter else None,
        "response": sample.text,
        "tokens": len(sample.token_ids),
        "finish_reason": sample.finish_reason,
        "reward": reward.total,
        "status": reward.verdict.status,
        "failure": reward.complaint or reward.failure,
        "extracted": reward.verdict.extracted,
    }
