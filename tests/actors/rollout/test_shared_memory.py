import os
from multiprocessing import shared_memory
from pathlib import Path

import psutil

from actors.rollout.shared_memory import delete_orphans, record_segments, segments_of


def test_segments_of_this_process_are_found_and_outlive_it_no_longer_than_the_session(tmp_path: Path) -> None:
    shared = shared_memory.SharedMemory(create=True, size=64)
    file = Path("/dev/shm") / shared.name.lstrip("/")
    try:
        assert file in segments_of(["self"])
        record_segments(tmp_path, os.getpid(), [file])
        delete_orphans(tmp_path)
        assert file.exists()
        delete_orphans(tmp_path, also_of_the_living=True)
        assert not file.exists()
    finally:
        shared.close()


def test_segments_of_the_dead_are_deleted(tmp_path: Path) -> None:
    file = tmp_path / "psm_1"
    file.touch()
    gone = next(pid for pid in range(2, 2**22) if not psutil.pid_exists(pid))
    record_segments(tmp_path, gone, [file])
    delete_orphans(tmp_path)
    assert not file.exists()
    assert list((tmp_path / "shared-memory").iterdir()) == []
