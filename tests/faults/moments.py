"""Faults of a run: processes that are killed or stopped, a disk that is full, read-only or without the run's folder.

Each is a context manager of a run: it harms at the start and makes good at the end.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.conftest import COORDINATOR, LEARNER, REWARD, ROLLOUT, WORKER, Run

DRIVER = "launch/run.py"
STOP_S = 120.0
TOLD_S = 600.0
"""Seconds in which a run tells of a killed process."""

MIB = 2**20

DISK = 1536 * MIB
"""Bytes of the file system for the disk's faults: the tiny run needs about 600 MiB."""

Over = Callable[[], bool]
"""Whether there is nothing left to make good, before its time has passed."""

NEVER: Over = bool
"""Returns False, as `bool()` does: the fault lasts its whole time."""


@dataclass(frozen=True)
class Fault:
    """One kind of harm. seconds: how long it lasts, unless the run ends first."""

    name: str
    harm: Callable[[Run], AbstractContextManager[Over]]
    seconds: float


def victim_of(run: Run, title: str) -> psutil.Process:
    return psutil.Process(run.process.pid) if title == DRIVER else run.find(title)


def killed(title: str, event: str = "") -> Callable[[Run], AbstractContextManager[Over]]:
    """kill -9 of one process. event: name of its event; empty where there is none."""

    def harm(run: Run) -> AbstractContextManager[Over]:
        victim, told = victim_of(run, title), len(run.events(event))  # found before the moment, which is short

        @contextlib.contextmanager
        def strike() -> Iterator[Over]:
            victim.kill()
            yield lambda: not event or len(run.events(event)) > told

        return strike()

    return harm


def stopped(title: str) -> Callable[[Run], AbstractContextManager[Over]]:
    """SIGSTOP of one process, then SIGCONT."""

    @contextlib.contextmanager
    def harm(run: Run) -> Iterator[Over]:
        victim = victim_of(run, title)
        victim.suspend()
        yield lambda: not victim.is_running()
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.resume()

    return harm


@contextlib.contextmanager
def full(folder: Path) -> Iterator[Over]:
    """The file system of a folder has not a byte left."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        for step in (64 * MIB, MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), filler.stat().st_size, step)
    yield NEVER
    filler.unlink()


@contextlib.contextmanager
def read_only(run: Run) -> Iterator[Over]:
    """The kernel finds an error in the file system of the run folder and makes it read-only; then it is repaired."""
    break_disk(run.folder)
    yield NEVER
    run.process.wait()
    repair_disk(run.folder)


def break_disk(folder: Path) -> None:
    """Have an ext4 turn read-only; data that was not flushed is lost."""
    Path("/sys/fs/ext4", disk_of(folder)[1].name, "trigger_fs_error").write_text("1")


def repair_disk(folder: Path) -> None:
    mount, device = disk_of(folder)
    call("umount", mount)
    subprocess.run(["e2fsck", "-fy", device], capture_output=True, check=False)  # its exit code says what it mended
    call("mount", "-o", "errors=remount-ro", device, mount)


@contextlib.contextmanager
def deleted(run: Run) -> Iterator[Over]:
    shutil.rmtree(run.folder, ignore_errors=True)  # while the run writes
    shutil.rmtree(run.folder, ignore_errors=True)
    yield NEVER


KILLS = {
    title: Fault(f"kill -9 of {title.removeprefix('ray::')}", killed(title, event), TOLD_S)
    for title, event in (
        (ROLLOUT, "rollout-0 restarted"),
        (WORKER, ""),
        (REWARD, "reward-0 restarted"),
        (LEARNER, "learner died"),
        (COORDINATOR, "coordinator died"),
        (DRIVER, ""),
    )
}

FAULTS = {
    "rollout": Fault("SIGSTOP of the rollout actor", stopped(ROLLOUT), STOP_S),
    "worker": Fault("SIGSTOP of a reward worker", stopped(WORKER), STOP_S),
    "reward": Fault("SIGSTOP of the reward actor", stopped(REWARD), STOP_S),
    "learner": Fault("SIGSTOP of the learner", stopped(LEARNER), STOP_S),
    "coordinator": Fault("SIGSTOP of the coordinator", stopped(COORDINATOR), STOP_S),
    "driver": Fault("SIGSTOP of the driver", stopped(DRIVER), STOP_S),
    "full": Fault("full disk", lambda run: full(run.folder.parent), 300.0),
    "read-only": Fault("read-only disk", read_only, 300.0),
    "deleted": Fault("deleted run folder", deleted, 300.0),
}


def disk_of(folder: Path) -> tuple[Path, Path]:
    """Return mount point and device of a folder's file system."""
    disks = (part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint))
    where = max(disks, key=lambda part: len(part.mountpoint))
    return Path(where.mountpoint), Path(where.device)


def call(*command: str | Path) -> str:
    """Run a command that must succeed; return its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def small_world() -> Iterator[Path]:
    """Yield a folder on a small ext4 in a file, as root in a mount namespace of one's own."""
    with tempfile.TemporaryDirectory(prefix="faults-") as root, contextlib.ExitStack() as undo:
        folder, image = Path(root, "disk"), Path(root, "image")
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(DISK)
        call("mkfs.ext4", "-q", "-m", "0", image)
        device = call("losetup", "--find", "--show", image)
        undo.callback(call, "losetup", "-d", device)
        call("mount", "-o", "errors=remount-ro", device, folder)
        undo.callback(call, "umount", folder)
        yield folder
