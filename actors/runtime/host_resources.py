"""Disk, shared memory and memory of the host: the needs of a run, the free amounts, and warnings as they shrink."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from microbudget_rl.actors.storage.run_record import RunRecord

MIB = 2**20

CONTROL_GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

SHARED_MEMORY = Path("/dev/shm")

DISK_MARGIN = 512 * MIB
"""Bytes of disk for everything but checkpoints: samples, curves, logs, other programs' files."""

LAST_MARGIN = 128 * MIB
"""Bytes of DISK_MARGIN that are kept for the end of a run, besides its last checkpoint."""

SHARED_MEMORY_LOW = 64 * MIB
MEMORY_LOW_SHARE = 0.06
"""Fraction of all memory, below which the kernel may soon kill a process."""


@dataclass(frozen=True)
class HostNeeds:
    """The needs of a run, in bytes.

    disk: on the run folder's disk. checkpoint: its part for one more checkpoint and, on a cluster, published adapters.
    temporary: in the folder for temporary files, which has the published adapters of a run on one machine.
    """

    disk: int
    checkpoint: int
    temporary: int
    shared_memory: int
    memory: int


@dataclass(frozen=True)
class HostFree:
    """The free amounts, in bytes.

    disk: on the run folder's disk.
    temporary: on the disk of the folder for temporary files.
    begun: size of the unfinished checkpoints and the published adapters in the run folder.
    kept: size of the complete checkpoints in the run folder.
    """

    disk: int
    temporary: int
    shared_memory: int
    memory: int
    begun: int = 0
    kept: int = 0


@dataclass(frozen=True)
class HostWarning:
    """A resource that runs low. fatal: the run should end while it still can."""

    kind: str
    text: str
    fatal: bool = False


@dataclass
class HostGuard:
    """Gives each warning once, and again when it returns: a pure state machine. total_memory: in bytes."""

    need: HostNeeds
    total_memory: int
    _given: set[tuple[str, bool]] = field(default_factory=set)

    def look(self, free: HostFree) -> list[HostWarning]:
        """Return the new warnings. A low disk becomes fatal while there still is room for a last checkpoint."""
        disks = {
            "disk": ("the run folder", free.disk, free.disk + free.begun - self.need.checkpoint),
            "temporary disk": ("TMPDIR", free.temporary, free.temporary),
        }
        warnings = [
            HostWarning(kind, f"the disk of {name} has {amount(left)} left", fatal=margin < LAST_MARGIN)
            for kind, (name, left, margin) in disks.items()
            if margin < DISK_MARGIN
        ]
        if self.need.shared_memory and free.shared_memory < SHARED_MEMORY_LOW:
            warnings.append(HostWarning("shared memory", f"/dev/shm has {amount(free.shared_memory)} left"))
        if free.memory < MEMORY_LOW_SHARE * self.total_memory:
            warnings.append(HostWarning("memory", f"{amount(free.memory)} of memory are left"))
        new = [warning for warning in warnings if (warning.kind, warning.fatal) not in self._given]
        self._given = {(warning.kind, warning.fatal) for warning in warnings}
        return new


def measure(folder: Path) -> HostFree:
    """Return the free amounts. folder: the run's, which need not exist yet."""
    record = RunRecord(folder)
    return HostFree(
        disk=free_disk(folder),  # first: a checkpoint that is being written then counts too much, not too little
        temporary=free_disk(Path(tempfile.gettempdir())),
        shared_memory=shutil.disk_usage(SHARED_MEMORY).free,
        memory=free_memory(),
        begun=sum(map(size, (folder / "adapters", *record.checkpoints.unfinished))),
        kept=sum(map(size, record.checkpoints.all)),
    )


def free_disk(folder: Path) -> int:
    """Return the bytes that this user may still write at a path, whose last parts need not exist."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def in_memory(folder: Path) -> bool:
    """Whether the files of an existing folder are in memory."""
    kinds = {disk.mountpoint: disk.fstype for disk in psutil.disk_partitions(all=True)}
    resolved = folder.resolve()
    return next((kinds[str(path)] for path in (resolved, *resolved.parents) if str(path) in kinds), "") == "tmpfs"


def size(folder: Path) -> int:
    """Return the bytes of all files under a folder, even if some vanish meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(path, name).lstat().st_size
    return total


def free_memory() -> int:
    """Return the bytes of memory that are free without swapping, within this process's control groups."""
    free = [psutil.virtual_memory().available]
    for folder, limit, usage, prefix in _control_groups():
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        reclaimable = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
        free.append(limit - int((folder / usage).read_text()) + reclaimable)
    return min(free)


def total_memory() -> int:
    """Return the bytes of memory this process may use: the machine's, or the least that a control group allows."""
    return min([psutil.virtual_memory().total, *(limit for _, limit, _, _ in _control_groups())])


def _control_groups() -> Iterator[tuple[Path, int, str, str]]:
    """Yield the visible control groups (version 2 or 1) that limit this process's memory: its own and its parents.

    Each has a folder, a limit in bytes, the name of the file with the bytes in use, and a prefix of its statistics.
    """
    groups = dict(line.split(":", 2)[1:] for line in MEMBERSHIP.read_text().splitlines())
    for root, controller, limit, usage, prefix in (
        (CONTROL_GROUPS, "", "memory.max", "memory.current", ""),
        (CONTROL_GROUPS / "memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        path = Path(groups.get(controller, "/").lstrip("/"))
        for folder in (root / path, *(root / parent for parent in path.parents)):
            file = folder / limit
            if file.is_file() and (text := file.read_text().strip()) != "max":
                yield folder, int(text), usage, prefix


def amount(count: float) -> str:
    """Write bytes in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / MIB:.0f} MiB"
