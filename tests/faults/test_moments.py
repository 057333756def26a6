"""A full or read-only disk, a deleted folder, a paused process: `tests.faults inject` has the rest."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microbudget_rl.actors.messages import UpdateStats
from tests.actors.virtual_run import Run as VirtualRun
from tests.faults.conftest import COORDINATOR, Run, latest
from tests.faults.moments import MIB, break_disk, call, full, repair_disk, small_world, stopped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

Begin = Callable[..., Run]

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system of its own")

SETTINGS = ("eval.problems=0", "checkpoint.every=2", "learner.learning_rate=1e-6")

PAUSE_S = 100.0
"""Seconds, more than an actor may be silent."""


@pytest.fixture
def small_ext4() -> Iterator[Path]:
    with small_world() as disk:
        yield disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    call("mount", "-t", "tmpfs", "-o", f"size={1024 * MIB}", "none", tmp_path)
    yield tmp_path
    call("umount", tmp_path)


@needs_root
def test_full_disk_halts_with_the_remedy_and_the_same_command_goes_on(begin: Begin, small_disk: Path):
    settings = (f"run.folder={small_disk}", *SETTINGS)
    run = begin("full", "budget.updates=2000", *settings)
    run.wait_for_update(3)
    with full(small_disk):
        ended = run.end()
        assert ended.code == 3, ended.output
        assert "make room" in ended.output
        assert str(small_disk) in ended.output
        assert "Traceback" not in ended.output
        saved = latest(run.folder)
    again = begin("full", f"budget.updates={saved + 5}", *settings).end()
    assert again.code == 0, again.output
    assert saved > 0
    assert [row["update"] for row in again.rows] == list(range(1, saved + 6))


def test_deleted_folder_is_told_and_does_not_come_back(begin: Begin):
    run = begin("deleted", "budget.updates=2000", *SETTINGS)
    run.wait_for_update(2)
    run.look()
    shutil.rmtree(run.folder, ignore_errors=True)
    output = run.output()
    assert run.process.returncode == 3, output
    assert str(run.folder) in output
    assert "Traceback" not in output
    assert not (run.folder / "config.yaml").exists()
    run.check_nothing_left()


def test_pause_of_the_coordinator_costs_no_actor(begin: Begin):
    run = begin("paused", "budget.updates=2000", *SETTINGS)
    run.wait_for_update(3)
    at = run.updates
    with stopped(COORDINATOR)(run), pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(PAUSE_S)
    run.wait_for_update(at + 2)
    assert run.events("died") == []


@needs_root
@pytest.mark.parametrize("update", [5, 6])
def test_history_outlives_a_disk_that_turns_read_only(small_ext4: Path, update: int):
    """All but the disk is a fake."""
    before, after = VirtualRun(small_ext4 / "run"), VirtualRun(small_ext4 / "run")
    for run in (before, after):
        run.change({"budget.updates": 9, "checkpoint.every": 2})
    step = before.learner.step

    async def fail_at_update(rate: float) -> UpdateStats:
        if before.learner.version == update - 1:
            break_disk(small_ext4)
        return await step(rate)

    before.learner.step = fail_at_update  # type: ignore[method-assign]
    with pytest.raises((OSError, ExceptionGroup)):
        before.go()
    repair_disk(small_ext4)
    assert after.go().status == "completed"
    assert [row["update"] for row in after.rows] == list(range(1, 10))
