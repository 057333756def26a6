"""Room on the host: disk, shared memory, memory. What a run needs, what there is, and what to do as it shrinks."""

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from actors.storage.run_record import RunRecord

MIB = 2**20

CONTROL_GROUPS = Path("/sys/fs/cgroup")

DISK_MARGIN = 512 * MIB
"""Disk beside checkpoints: samples, curves, logs, what others write meanwhile."""

LAST_MARGIN = 128 * MIB
"""The part of it that is kept for what the end of a run writes beside its last checkpoint."""

SHARED_MEMORY_LOW = 64 * MIB
MEMORY_LOW_SHARE = 0.06
"""Ray's memory monitor begins to kill at 5 % of the machine's memory left."""


@dataclass(frozen=True)
class HostNeeds:
    """Bytes. As a need: disk is that of a whole run, checkpoint of one more checkpoint and the versions beside it."""

    disk: int
    checkpoint: int
    shared_memory: int
    memory: int


@dataclass(frozen=True)
class HostFree:
    """Bytes that are left: disk at the run folder, /dev/shm, memory that can be had without swapping. And what the
    run's folder holds of its need: begun, of the next checkpoint and versions beside it; kept, in whole checkpoints.
    """

    disk: int
    shared_memory: int
    memory: int
    begun: int = 0
    kept: int = 0


@dataclass(frozen=True)
class Alarm:
    """kind: disk, shared memory or memory. fatal: the run should end while it still can."""

    kind: str
    text: str
    fatal: bool = False


@dataclass
class HostGuard:
    """Raises each alarm once, and again after it was over: a pure state machine. total_memory: bytes of the host."""

    need: HostNeeds
    total_memory: int
    _raised: set[tuple[str, bool]] = field(default_factory=set)

    def look(self, free: HostFree) -> list[Alarm]:
        """New alarms. The last gasp of the disk is kept for the final checkpoint."""
        margin = free.disk + free.begun - self.need.checkpoint
        standing = []
        if margin < DISK_MARGIN:
            text = f"the disk of the run folder has {amount(free.disk)} left"
            standing.append(Alarm("disk", text, fatal=margin < LAST_MARGIN))
        if self.need.shared_memory and free.shared_memory < SHARED_MEMORY_LOW:
            standing.append(Alarm("shared memory", f"/dev/shm has {amount(free.shared_memory)} left"))
        if free.memory < MEMORY_LOW_SHARE * self.total_memory:
            standing.append(Alarm("memory", f"{amount(free.memory)} of memory are left"))
        fresh = [alarm for alarm in standing if (alarm.kind, alarm.fatal) not in self._raised]
        self._raised = {(alarm.kind, alarm.fatal) for alarm in standing}
        return fresh


def measure(folder: Path) -> HostFree:
    """What is left now. folder: of the run, or where it will be."""
    record = RunRecord(folder)
    # The disk first: of a checkpoint that is being written rather too much is counted than too little.
    return HostFree(
        disk=free_disk(folder),
        shared_memory=shutil.disk_usage("/dev/shm").free,
        memory=free_memory(),
        begun=sum(map(size, (record.adapters, *record.checkpoints.unfinished))),
        kept=sum(map(size, record.checkpoints.all)),
    )


def free_disk(folder: Path) -> int:
    """Bytes that this user may still write at a path, whose last parts need not exist."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def size(folder: Path) -> int:
    """Bytes of all files under a folder, any of which may vanish meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(path, name).lstat().st_size
    return total


def free_memory() -> int:
    """Bytes of memory that can be had without swapping, within this process's control group."""
    free = psutil.virtual_memory().available
    group = _memory_group()
    if group is None:
        return free
    rows = dict(line.split() for line in group.statistics.read_text().splitlines())
    reclaimable = sum(int(rows.get(name, 0)) for name in group.reclaimable)
    return min(free, group.limit - int(group.usage.read_text()) + reclaimable)


def total_memory() -> int:
    """Bytes of memory this process may use: the machine's, or its control group's limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = _memory_group()
    return physical if group is None else min(physical, group.limit)


@dataclass(frozen=True)
class MemoryGroup:
    """A control group that limits memory. limit: bytes. reclaimable: what counts as used and can be had back."""

    limit: int
    usage: Path
    statistics: Path
    reclaimable: tuple[str, str]


def _memory_group() -> MemoryGroup | None:
    """Of this process, in the second version of control groups or the first; None without a limit."""
    for folder, limit, usage, prefix in (
        (CONTROL_GROUPS, "memory.max", "memory.current", ""),
        (CONTROL_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        file = folder / limit
        if file.is_file() and (text := file.read_text().strip()) != "max":
            names = (f"{prefix}inactive_file", f"{prefix}active_file")
            return MemoryGroup(int(text), folder / usage, folder / "memory.stat", names)
    return None


def amount(count: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / MIB:.0f} MiB"
