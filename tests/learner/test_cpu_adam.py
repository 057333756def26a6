import os
from pathlib import Path

from learner.cpu_adam import abandoned


def test_a_lock_without_a_process_is_abandoned(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not abandoned(lock)
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL)
    assert not abandoned(lock)
    os.close(descriptor)
    assert abandoned(lock)
