"""Copies of a run, made by the user's command `checkpoint.copy`, for a machine that may be lost."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile, copytree
from signal import SIGKILL
from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired
from typing import Any

from microbudget_rl.actors.storage.files import MANIFEST, MARK
from microbudget_rl.actors.storage.folders import beside, delete, drop_leftovers
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.actors.worker import Worker
from microbudget_rl.conf.errors import BadInput, in_brief
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.signals import scratch_folder

LOCAL = {"adapters", "checkpoints", "ray-session", "wandb"}
"""Entries of a run folder that belong to this machine, or are copied in another way."""

PAUSE_S, COPY_S, TRIAL_S, ENDING_S = 60.0, 3600.0, 60.0, 600.0
"""Seconds before a failed copy is tried again, and of one that hangs, of the trial before a run, and of the last copy,
after the end of the budget: the machine may cost by the minute."""


class CopyFailed(Exception):
    """The command has failed, or was stopped because it took too long."""


class Copies:
    """Copies a run at each new checkpoint. The run never waits, and no failure stops it. worker: counts failures."""

    def __init__(self, config: Config, run: RunRecord) -> None:
        self.worker = Worker("copies", patience_s=COPY_S)
        self._config, self._run = config, run
        self._copied: object = None  # path and time of a checkpoint, which a rollback may make anew
        self._next = 0.0

    def look(self) -> None:
        """Have a new checkpoint copied, unless a copy is being made or has just failed."""
        latest = self._run.checkpoints.latest
        newest = latest and (latest, (latest / MANIFEST).stat().st_mtime_ns)
        if newest not in (None, self._copied) and self.worker.idle and time.monotonic() >= self._next:
            self.worker.put(self._copy, newest)

    def _copy(self, latest: Any) -> None:
        self._next = time.monotonic() + PAUSE_S
        with snapshot(self._run) as folder:
            execute(self._config, folder, COPY_S)
        self._copied, self._next = latest, 0.0


def check_copies(config: Config) -> None:
    """Have an empty folder copied. Raises BadInput if the command fails."""
    if config.checkpoint.copy:
        with scratch_folder("microbudget-copy-") as empty:
            try:
                execute(config, empty, TRIAL_S)
            except CopyFailed as error:
                raise BadInput(f"checkpoint.copy={config.checkpoint.copy}: {error}; correct it, or omit it") from None


def copy_ending(config: Config, folder: Path) -> str:
    """Copy a run's last files and its report. Return a sentence on the result; an error does not fail the run."""
    try:
        with snapshot(RunRecord(folder)) as taken:
            execute(config, taken, ENDING_S)
    except (CopyFailed, OSError) as error:
        return f"The last copy by checkpoint.copy failed: {in_brief(error)}"
    return "Copied by checkpoint.copy"


def execute(config: Config, folder: Path, seconds: float) -> None:
    """Have the command copy a folder. Raises CopyFailed with its last words."""
    facts = {"MICROBUDGET_NAME": config.run.name, "MICROBUDGET_FOLDER": str(folder)}
    with Popen(
        config.checkpoint.copy,
        shell=True,
        env=os.environ | facts,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that all of its processes can be stopped
    ) as copying:
        try:
            output, _ = copying.communicate(timeout=seconds)
        except TimeoutExpired:
            os.killpg(copying.pid, SIGKILL)
            raise CopyFailed(f"it takes longer than {seconds:.0f} s") from None
    if copying.returncode:
        raise CopyFailed(f"exit code {copying.returncode}: {output.strip().rpartition(chr(10))[2]}")


@contextmanager
def snapshot(run: RunRecord) -> Iterator[Path]:
    """Yield a folder with the latest and the best checkpoint of a run, and its other files without LOCAL, hidden ones
    and links. What the run deletes meanwhile stays in it.
    """

    def left_out(place: str, names: list[str]) -> set[str]:
        hidden = {name for name in names if name.startswith(".") and name != MARK}
        other = {name for name in names if not (path := Path(place, name)).is_file() and not path.is_dir()}
        links = {name for name in names if Path(place, name).is_symlink()}
        return hidden | other | links | (LOCAL if place == str(run.path) else set())

    drop_leftovers(run.path / "copy")
    made = beside(run.path / "copy")
    try:
        for checkpoint in filter(None, {run.checkpoints.latest, run.checkpoints.best}):  # no history is older
            copytree(checkpoint, made / "run" / "checkpoints" / checkpoint.name, copy_function=_link)
        copytree(run.path, made / "run", ignore=left_out, dirs_exist_ok=True)
        yield made / "run"
    finally:
        delete(made)


def _link(source: str, copy: str) -> None:
    """Make a hard link, which takes no time. Some disks have none."""
    try:
        os.link(source, copy)
    except OSError:
        copyfile(source, copy)
