"""Whole runs over a slow disk, and over one that is full, or read-only, from some write on: the same command goes on
once it is mended.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator import saving
from microbudget_rl.actors.errors import root_cause
from microbudget_rl.actors.storage import checkpoints, files
from microbudget_rl.actors.storage.files import disk_trouble
from tests.actors.virtual_run import Run, collapsing

UPDATES = 5
MORE_WRITES_THAN_A_RUN_HAS = 120


class Disk:
    """Takes so many writes, and of the next ones no more than a part."""

    def __init__(self, writes: int, number: int) -> None:
        self.left = writes
        self._number = number

    @contextmanager
    def naming(self, path: Path) -> Iterator[None]:
        self.left -= 1
        if self.left >= 0:
            yield
            return
        if self._number == errno.ENOSPC and path.name.endswith((".tmp", ".json")):
            path.write_text('{"half')
        raise OSError(self._number, os.strerror(self._number), str(path))


@settings(max_examples=15)
@given(writes=st.integers(0, MORE_WRITES_THAN_A_RUN_HAS), number=st.sampled_from([errno.ENOSPC, errno.EROFS]))
def test_run_goes_on_from_whatever_was_written(writes: int, number: int):
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        folder, disk = Path(root), Disk(writes, number)
        before, after = Run(folder), Run(folder)
        for run in (before, after):
            run.change({"budget.updates": UPDATES})
        for module in (files, checkpoints):
            patch.setattr(module, "naming", disk.naming)
        try:
            before.go()
        except (OSError, ExceptionGroup) as error:
            trouble = disk_trouble(folder, root_cause(error))
            assert trouble is not None
            assert "then give the same command" in trouble
        disk.left = 10**6
        assert after.go().status == "completed"
        assert after.updates == [*range(1, UPDATES + 1)]
        last = {batch.version: batch for run in (before, after) for batch in run.learner.batches}
        used = [group.index for version in range(UPDATES) for group in last[version].groups]
        assert sorted(used) == list(range(len(used)))


def test_a_mount_that_times_out_is_no_end_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(folder: Path, *_: object) -> None:
        if folder.name.startswith(f".update-{UPDATES:06d}"):
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(saving, "write_state", write)
    run = Run(tmp_path)
    run.change({"budget.updates": UPDATES, "checkpoint.every": 100})
    assert isinstance(run.fail(), TimeoutError)


def test_no_slow_disk_holds_up_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With validations, a crash, a rollback; in real time, since a virtual loop has no threads."""
    threads: set[tuple[str, threading.Thread]] = set()
    for module, name in ((os, "fsync"), (checkpoints, "delete"), (saving, "damage")):
        call = getattr(module, name)

        def note(*given: Any, name: str = name, call: Any = call) -> Any:
            threads.add((name, threading.current_thread()))
            return call(*given)

        monkeypatch.setattr(module, name, note)
    run = Run(tmp_path)
    run.engine.seconds = run.learner.seconds = 0.001
    run.verifier.seconds_of = lambda _: 0.001
    run.learner.deaths = {("accumulate", 4)}
    run.learner.metrics_of = collapsing({12, 13})
    more = {"budget.updates": 14, "guard.window": 8, "guard.action": "rollback", "validation.every": 3}
    run.change({**more, "validation.share": 1.0})
    assert asyncio.run(run.process()).status == "completed"
    assert run.updates == [*range(1, 15)]
    assert run.folder.spent == run.spent
    assert {name for name, _ in threads} == {"fsync", "delete", "damage"}
    assert threading.main_thread() not in {thread for _, thread in threads}
