"""The loggers that a run can choose. Each has a worker of its own, so that none can stop or slow the run."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from microbudget_rl.actors.protocols import Tracker
from microbudget_rl.actors.worker import Worker
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import public_settings
from microbudget_rl.conf.schema import Config

WANDB = "wandb~=0.31"
"""Requirement of wandb, as in the project's extra `loggers`."""

PROJECT = "microbudget"
"""Default of WANDB_PROJECT."""

TEXT_SAMPLES = 3
"""Number of an update's responses that TensorBoard shows."""

FLUSH_S = 5

WAITING = 256
"""Most calls that wait for a logger, those of a hundred updates. Further rows and samples are lost."""

SHOWN_ROWS = 64
"""Most samples of an update or evaluation that loggers get."""

OVERVIEW = {
    "reward/accuracy": "accuracy",
    "eval/pass@1": "held-out pass@1",
    "validation/pass@1": "held-out pass@1",
    "validation/reward": "held-out reward",
    "response/mean_length": "length",
    "policy/entropy": "entropy",
    "policy/kl_to_base": "KL to the reference",
    "groups/zero_variance": "zero-variance groups",
    "errors/unanimous": "unanimous errors",
    "tokens/useful_fraction": "useful tokens",
}
"""The most important curves: their names in TensorBoard's first group, `0 overview`, by metric."""


class TensorBoardTracker:
    """Writes event files into tensorboard/. The first value imports torch, which would slow the start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._next_update = 0
        self._open: Any = None

    def begin(self, next_update: int) -> None:
        self.end({})
        self._next_update, self._open = next_update, None

    @property
    def _writer(self) -> Any:
        if self._open is None:
            from torch.utils.tensorboard import SummaryWriter

            self._open = SummaryWriter(str(self._folder), purge_step=self._next_update, flush_secs=FLUSH_S)
        return self._open

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        overview = {f"0 overview/{shown}": values[name] for name, shown in OVERVIEW.items() if name in values}
        for name, value in {**values, **overview}.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        for number, row in enumerate(rows[:TEXT_SAMPLES]):
            text = f"{row['status']}, reference {row['gold']}\n\n---\n\n{row['prompt']}\n\n---\n\n{row['response']}"
            self._writer.add_text(f"samples/{number}", "    " + text.replace("\n", "\n    "), step)

    def end(self, summary: dict[str, Any]) -> None:
        if self._open:
            self._open.close()


@dataclass
class WandbTracker:
    """Logs to one run of wandb over all resumes. Curves are over `update`, which may repeat."""

    config: Config
    folder: Path
    identity: str
    _run: Any = None

    def begin(self, next_update: int) -> None:
        import wandb

        if self._run:
            return
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.config.run.name,
            id=self.identity,
            resume="allow",
            config=public_settings(self.config),
            dir=str(self.folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="update")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "update": step})

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        kind = "update" if name.startswith("update-") else name  # all updates are one table with versions
        self._run.log({f"samples/{kind}": _table(rows), "update": step})

    def end(self, summary: dict[str, Any]) -> None:
        self._run.summary.update({key: value for key, value in summary.items() if isinstance(value, str | int | float)})
        if summary.get("events"):
            self._run.log({"events": _table(summary["events"])})
        self._run.finish()


def _table(rows: list[dict[str, Any]]) -> Any:
    import wandb

    columns = list(rows[0]) if rows else []
    return wandb.Table(columns=columns, data=[[row.get(column) for column in columns] for row in rows])


class Tracking:
    """Passes everything to all loggers and returns at once. workers: one per logger, under its name."""

    def __init__(self, trackers: Mapping[str, Tracker] | None = None) -> None:
        self.workers = [Logger(name, tracker) for name, tracker in (trackers or {}).items()]

    def begin(self, next_update: int) -> None:
        """Begin or continue the run. Earlier rows from `next_update` on no longer count."""
        for logger in self.workers:
            logger.put(logger.begin, next_update, due=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._put(lambda tracker: tracker.scalars(step, values))

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Log the first rows of samples/<name>.jsonl."""
        shown = rows[:SHOWN_ROWS]
        self._put(lambda tracker: tracker.samples(name, step, shown))

    def end(self, summary: dict[str, Any], seconds: float) -> None:
        """Log how the run ended, and give all loggers together this time to finish."""
        deadline = time.monotonic() + seconds
        self._put(lambda tracker: tracker.end(summary), due=True)
        for worker in self.workers:
            worker.wait(max(deadline - time.monotonic(), 0.0))

    def _put(self, call: Callable[[Tracker], None], due: bool = False) -> None:
        for logger in self.workers:
            logger.put(logger.do, call, due=due)


class Logger(Worker):
    """The worker of a logger, in whose thread `begin` and `do` are called."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        super().__init__(name, WAITING)
        self._tracker = tracker
        self._to_begin: int | None = None

    def begin(self, next_update: int) -> None:
        self._to_begin = next_update
        self._tracker.begin(next_update)
        self._to_begin = None

    def do(self, call: Callable[[Tracker], None]) -> None:
        """Do a call, after another attempt to begin if the last one has failed."""
        if self._to_begin is not None:
            self.begin(self._to_begin)
        call(self._tracker)


def check_installed(names: Sequence[str]) -> None:
    """Raise BadInput for a logger whose package is not installed."""
    if "wandb" in names and find_spec("wandb") is None:
        remedy = f"install it by {sys.executable} -m pip install '{WANDB}', or leave wandb out"
        raise BadInput(f"run.report_to=wandb: the package wandb is not installed; {remedy}")


def make_tracking(config: Config, folder: Path, identity: str) -> Tracking:
    """Return the loggers of a run, which have yet to begin. identity: unique, and the same over all resumes."""
    known: dict[str, Tracker] = {
        "tensorboard": TensorBoardTracker(folder),
        "wandb": WandbTracker(config, folder, identity),
    }
    return Tracking({name: known[name] for name in config.run.report_to})
