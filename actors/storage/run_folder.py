"""The folder of a run: everything it leaves behind, written so that no half-written file is ever read."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from actors.messages import AdapterRef, Group, Reward, Sample
from actors.storage.files import append_row, damage, drop_half_line, replace_text, seal, sync
from actors.storage.run_record import RunRecord
from conf.errors import BadInput

SAMPLED_GROUPS = 8
"""Groups of an update whose samples are kept; long responses would otherwise fill the disk in a day."""

TEXT_SAMPLES = 3
"""Responses of an update shown in TensorBoard."""


class RunFolder(RunRecord):
    """Writes `metrics.jsonl`, TensorBoard, samples, checkpoints, the time spent and `summary.json` of one run.

    The same names are used in metrics.jsonl and TensorBoard.
    """

    def __init__(self, path: Path, keep_last: int, foreign: Callable[[Path], str | None] = lambda _: None) -> None:
        """Cleans up after an earlier process. foreign: why a whole checkpoint is not this run's, if it is not.

        Raises BadInput if there are checkpoints, but none to go on from.
        """
        super().__init__(path)
        self._keep_last = keep_last
        (path / "failure.log").unlink(missing_ok=True)
        for part in ("samples", "checkpoints", "adapters", "tensorboard"):
            (path / part).mkdir(parents=True, exist_ok=True)
        self.drop_adapters(keep=())
        drop_half_line(path / "events.jsonl")
        for unfinished in (path / "checkpoints").glob(".update-*.tmp"):
            shutil.rmtree(unfinished)
        for rendezvous in path.glob(".ranks-*"):
            rendezvous.unlink()
        self._settle(lambda checkpoint: damage(checkpoint) or foreign(checkpoint))
        self._open_tensorboard()

    @property
    def adapters(self) -> Path:
        """Where the learner publishes versions."""
        return self.path / "adapters"

    def drop_adapters(self, keep: tuple[AdapterRef, ...]) -> None:
        """Delete all published versions but these."""
        names = {adapter.name for adapter in keep}
        for folder in self.adapters.iterdir():
            if folder.name not in names:
                shutil.rmtree(folder)

    def write_spent(self, seconds: float, ledger: dict[str, Any]) -> None:
        """Keep what the run has used of its budget, and the record of what for."""
        replace_text(self.path / "ledger.json", json.dumps(ledger))
        replace_text(self.path / "spent.json", json.dumps({"spent_s": seconds}))

    def next_incarnation(self) -> int:
        """A number for this life of the run that no earlier one has used."""
        file = self.path / "incarnation.json"
        number = 1 + self.incarnation()
        replace_text(file, json.dumps(number))
        return number

    def cut_metrics(self) -> int:
        """Drop the rows of updates after the newest checkpoint, and one that was cut off by a crash; the update that is
        to be written next.
        """
        checkpoint = self.checkpoint
        version = json.loads((checkpoint / "coordinator.json").read_text())["version"] if checkpoint else 0
        file = self.path / "metrics.jsonl"
        if file.exists():
            whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            replace_text(file, "".join(line for line in whole if json.loads(line)["update"] <= version))
        return version + 1

    def return_to(self, version: int) -> Path | None:
        """Forget all that came after a version with a checkpoint, or after the start (0); the checkpoint."""
        folder = self.path / "checkpoints"
        target = folder / checkpoint_name(version)
        if target.exists():
            link(folder / "latest", target)
        else:
            (folder / "latest").unlink(missing_ok=True)
        if self.best and self.best.name > target.name:
            (folder / "best").unlink()
        for newer in folder.glob("update-*"):
            if newer.name > target.name:
                shutil.rmtree(newer)
        self._tensorboard.close()
        self._open_tensorboard()
        return self.checkpoint

    def mark_best(self, version: int) -> None:
        """Point `best` at a version's checkpoint, which then is kept."""
        link(self.path / "checkpoints" / "best", self.path / "checkpoints" / checkpoint_name(version))

    def best_score(self) -> float:
        """Its pass@1; -1 without one."""
        score = json.loads((self.best / "coordinator.json").read_text())["validation"] if self.best else None
        return -1.0 if score is None else float(score)

    def trusted(self, version: int) -> int:
        """Version of the newest checkpoint that is not newer than this one, else of the oldest; 0 without any."""
        versions = [int(path.name.removeprefix("update-")) for path in (self.path / "checkpoints").glob("update-*")]
        return max((v for v in versions if v <= version), default=min(versions, default=0))

    def append_event(self, update: int, event: str, detail: str) -> None:
        """Write down what happened to a run beside its updates, in events.jsonl."""
        append_row(self.path / "events.jsonl", {"update": update, "event": event, "detail": detail})

    def append_metrics(self, update: int, row: dict[str, float]) -> dict[str, float]:
        """Write the row of one update; the row as written."""
        row = {"update": update, "version": update, **row}
        append_row(self.path / "metrics.jsonl", row)
        for name, value in row.items():
            self._tensorboard.add_scalar(name, value, update)
        return row

    def write_evaluation(self, name: str, version: int, summary: dict[str, Any]) -> dict[str, Any]:
        """Keep the evaluation of a version and show it in TensorBoard, beside the rows' figures of the same names; the
        summary given.
        """
        replace_text(self.path / f"eval-{name}.json", json.dumps(summary))
        for key, value in summary.items():
            if isinstance(value, float):
                self._tensorboard.add_scalar(key if "/" in key else f"eval/{key}", value, version)
        return summary

    def write_samples(self, name: str, groups: tuple[Group, ...]) -> None:
        """Keep what was said, and what it earned, in samples/<name>.jsonl."""
        kept = groups if name.startswith(("eval", "skipped")) else groups[:SAMPLED_GROUPS]
        rows = [
            sample_row(group, sample, reward)
            for group in kept
            for sample, reward in zip(group.samples, group.rewards, strict=True)
        ]
        replace_text(self.path / "samples" / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        version = rows[0]["version"] or 0
        for number, row in enumerate(rows[:TEXT_SAMPLES]):
            text = f"{row['prompt']}\n\n---\n\n{row['response']}\n\n---\n\n{row['status']}, gold {row['gold']}"
            self._tensorboard.add_text(f"samples/{number}", "    " + text.replace("\n", "\n    "), version)

    @asynccontextmanager
    async def new_checkpoint(self, version: int) -> AsyncIterator[Path]:
        """A temporary folder that becomes checkpoints/update-<version> and `latest` once the block has succeeded.

        Its gigabytes are hashed and synced beside the event loop; cancelled meanwhile, it stays a temporary folder.
        """
        final = self.path / "checkpoints" / checkpoint_name(version)
        temporary = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        await asyncio.to_thread(seal, temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        link(final.with_name("latest"), final)
        kept = [path for path in sorted(final.parent.glob("update-*")) if path.name <= final.name][-self._keep_last :]
        for other in final.parent.glob("update-*"):
            if other not in kept and other.name != (self.best and self.best.name):
                await asyncio.to_thread(shutil.rmtree, other)

    def write_summary(self, summary: dict[str, Any]) -> None:
        self._tensorboard.close()
        replace_text(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def _settle(self, refusal: Callable[[Path], str | None]) -> None:
        """Make the newest checkpoint that is not refused the latest, and move those that are out of the way. A best one
        that is gone is forgotten: its version may come again, with another score.
        """
        folder = self.path / "checkpoints"
        latest = folder / "latest"
        checkpoints = sorted(folder.glob("update-*"), reverse=True)
        if latest.exists():
            checkpoints = [checkpoint for checkpoint in checkpoints if checkpoint.name <= latest.resolve().name]
        reasons = []
        for checkpoint in checkpoints:
            if (reason := refusal(checkpoint)) is None:
                link(latest, checkpoint)
                break
            reasons.append(f"{checkpoint.name}: {reason}")
            aside = checkpoint.with_name(f"refused-{checkpoint.name}")
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.rename(aside)
            self.append_event(int(checkpoint.name.rpartition("-")[2]), "checkpoint refused", reason)
        else:
            latest.unlink(missing_ok=True)
            if reasons:
                raise BadInput(
                    f"no checkpoint of {self.path} can be used ({'; '.join(reasons)}): restore one from elsewhere, or "
                    f"start anew with run.overwrite=true"
                )
        if self.best is None:
            (folder / "best").unlink(missing_ok=True)

    def _open_tensorboard(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = SummaryWriter(str(self.path / "tensorboard"), purge_step=self.cut_metrics(), flush_secs=5)


def sample_row(group: Group, sample: Sample, reward: Reward) -> dict[str, Any]:
    """A line of samples/*.jsonl."""
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
        "extracted": reward.verdict.extracted,
    }


def checkpoint_name(version: int) -> str:
    return f"update-{version:06d}"


def link(name: Path, target: Path) -> None:
    """Point a link at a sibling, in one step."""
    fresh = name.with_name(f".{name.name}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(name)
    sync(name.parent)
