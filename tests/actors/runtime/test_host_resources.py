from pathlib import Path
from types import SimpleNamespace

import pytest

from microbudget_rl.actors.runtime import host_resources
from microbudget_rl.actors.runtime.host_resources import (
    DISK_MARGIN,
    LAST_MARGIN,
    MIB,
    HostFree,
    HostGuard,
    HostNeeds,
    amount,
    free_memory,
    in_memory,
    measure,
    total_memory,
)

GIB = 2**30
NEED = HostNeeds(disk=8 * GIB, checkpoint=GIB, temporary=0, shared_memory=512 * MIB, memory=6 * GIB)
PLENTY = HostFree(disk=100 * GIB, temporary=GIB, shared_memory=GIB, memory=10 * GIB)


def look(guard: HostGuard, **less: int) -> list[tuple[str, bool]]:
    return [(alarm.kind, alarm.fatal) for alarm in guard.look(HostFree(**{**vars(PLENTY), **less}))]


def test_disk_is_warned_of_once_and_ends_the_run_while_a_checkpoint_still_fits():
    guard = HostGuard(NEED, 24 * GIB)
    assert look(guard, disk=NEED.checkpoint + DISK_MARGIN) == []
    assert look(guard, disk=DISK_MARGIN, begun=NEED.checkpoint) == []
    assert look(guard, disk=NEED.checkpoint + DISK_MARGIN - 1) == [("disk", False)]
    assert look(guard, disk=NEED.checkpoint + DISK_MARGIN - 2) == []
    assert look(guard, disk=NEED.checkpoint + LAST_MARGIN - 1) == [("disk", True)]
    assert look(guard, disk=NEED.checkpoint + LAST_MARGIN - 2) == []
    (alarm,) = HostGuard(NEED, 24 * GIB).look(HostFree(300 * MIB, GIB, GIB, 10 * GIB))
    assert "300 MiB" in alarm.text
    assert amount(1.5 * GIB) == "1.5 GiB"
    assert look(guard, temporary=DISK_MARGIN - 1) == [("temporary disk", False)]
    assert look(guard, temporary=LAST_MARGIN - 1) == [("temporary disk", True)]


def test_files_of_a_tmpfs_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kinds = {"/": "overlay", str(tmp_path): "tmpfs", str(tmp_path / "disk"): "ext4"}
    mounts = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in kinds.items()]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: mounts)
    found = [in_memory(folder) for folder in (tmp_path.parent, tmp_path / "deep", tmp_path / "disk" / "deep")]
    assert found == [False, True, False]


def test_alarm_is_raised_again_after_it_was_over():
    guard = HostGuard(NEED, 24 * GIB)
    assert look(guard, memory=GIB) == [("memory", False)]
    assert look(guard) == []
    assert look(guard, memory=GIB, shared_memory=MIB) == [("shared memory", False), ("memory", False)]


def test_run_folder_is_measured_before_and_after_it_is_made(tmp_path: Path):
    free = measure(tmp_path / "runs" / "mine")
    assert free.disk > 0
    assert free.begun == free.kept == 0
    for number, name in enumerate(
        ("checkpoints/update-000001", "checkpoints/.update-000002.tmp/adapter", "adapters/policy-v1", "samples")
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "content").write_bytes(bytes(10**number))
    (tmp_path / "checkpoints" / "latest").symlink_to("update-000001")
    free = measure(tmp_path)
    assert (free.kept, free.begun) == (1, 110)


@pytest.mark.parametrize(
    ("line", "root", "limit", "usage", "prefix"),
    [
        ("0::/job/step", "", "memory.max", "memory.current", ""),
        ("4:memory:/job/step", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_limit_of_a_group_around_counts_too(
    line: str, root: str, limit: str, usage: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A batch system limits the job, not the step in it."""
    stat = f"anon 9\n{prefix}inactive_file 400\n{prefix}active_file 100\n"
    for group, most, now in (("job/step", "8192", "1000"), ("job", "4096", "3000")):
        folder = tmp_path / root / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((limit, most), (usage, now), ("memory.stat", stat)):
            (folder / name).write_text(text)
    membership = tmp_path / "membership"
    membership.write_text(f"7:cpuset:/\n{line}\n")
    monkeypatch.setattr(host_resources, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(host_resources, "MEMBERSHIP", membership)
    assert (total_memory(), free_memory()) == (4096, 1596)


def test_memory_without_a_limit_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert 0 < free_memory() <= total_memory()
    monkeypatch.setattr(host_resources, "CONTROL_GROUPS", tmp_path)
    machines = total_memory()
    (tmp_path / "memory.max").write_text("max")
    assert total_memory() == machines
