import os
from pathlib import Path

from learner.cpu_adam import abandoned


def test_a_lock_is_abandoned_only_when_no_process_has_it_open(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not abandoned(lock)
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL)
    assert not abandoned(lock)
    os.close(descriptor)
    assert abandoned(lock)
