"""How a run ends whose actors never come up."""

import asyncio
import errno
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.coordinator.coordinator import Coordinator
from actors.errors import Interrupted
from actors.messages import ProblemSet
from actors.runtime.host_resources import HostFree, HostNeeds
from actors.runtime.placement import place
from actors.storage import files
from actors.storage.remote import Remote
from actors.storage.run_folder import RunFolder
from actors.tracking.tracking import Tracking
from conf.errors import BadInput
from conf.schema import Config
from launch.session import coordinator_actor, remote_checkpoints
from launch.session.coordinator_actor import CoordinatorActor, RunRequest


class Hanging(CoordinatorActor):
    """Its engines take for ever to start, as they may on a card."""

    async def _assemble(self) -> Coordinator:
        await asyncio.Event().wait()
        raise AssertionError


class Hurried(CoordinatorActor):
    async def _assemble(self) -> Coordinator:
        raise Interrupted("SIGTERM")


class Mistaken(CoordinatorActor):
    async def _assemble(self) -> Coordinator:
        raise BadInput("lora.rank=3 is not possible: use 4")


def make_request(folder: Path, seconds: float = 600.0, spent_before: float = 0.0) -> RunRequest:
    config = Config()
    config.budget.minutes = seconds / 60
    return RunRequest(
        config=config,
        folder=folder,
        model_path="nowhere",
        placement=place((0,), 0),
        problems=ProblemSet((), (), {}),
        host_needs=HostNeeds(disk=2**30, checkpoint=2**20, shared_memory=2**20, memory=2**30),
        hardware="4 cores",
        started_at=time.monotonic(),
        spent_before=spent_before,
    )


def end(actor: CoordinatorActor, meanwhile: Callable[[], Awaitable[None]] | None = None) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        ending = asyncio.create_task(actor.run())
        await asyncio.sleep(0)
        if meanwhile:
            await meanwhile()
        return await ending

    return asyncio.run(scenario())


def test_start_that_hangs_ends_with_the_budget(tmp_path: Path) -> None:
    summary = end(Hanging(make_request(tmp_path, seconds=coordinator_actor.FINISH_MARGIN_S + 0.2)))
    assert summary["status"] == "budget_exhausted"
    assert "while the engines were starting" in summary["reason"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_start_that_hangs_ends_when_told_to(tmp_path: Path) -> None:
    actor = Hanging(make_request(tmp_path))
    summary = end(actor, lambda: actor.stop("SIGTERM"))
    assert (summary["status"], summary["reason"]) == ("interrupted", "SIGTERM")


def test_disk_that_runs_full_halts_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_actor, "measure", lambda folder: HostFree(2**20, 2**30, 2**40))
    summary = end(Hanging(make_request(tmp_path)))
    assert summary["status"] == "halted"
    assert summary["reason"] == (
        f"the disk of the run folder has 1 MiB left: make room in {tmp_path}, then give the same command"
    )
    assert [event["event"] for event in summary["events"]] == ["disk low"]
    assert summary["ledger"]["counts"]["warnings/disk"] == 1


def test_full_disk_halts_the_run_although_nothing_can_be_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(folder: RunFolder, update: int, event: str, detail: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(coordinator_actor, "measure", lambda folder: HostFree(2**20, 2**30, 2**40))
    monkeypatch.setattr(RunFolder, "append_event", append)
    assert end(Hanging(make_request(tmp_path, seconds=10.0)))["status"] == "halted"


def fail(number: int) -> Callable[[Path], None]:
    def sync(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    return sync


class Writing(CoordinatorActor):
    """Has come to write something."""

    async def _assemble(self) -> Coordinator:
        self._folder.next_incarnation()
        raise AssertionError


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "make room there"), (errno.EROFS, "make it writable again")]
)
def test_disk_that_takes_nothing_more_halts_the_run(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = Writing(make_request(tmp_path, spent_before=5.0))
    RunFolder(tmp_path).write_spent(5.0)
    monkeypatch.setattr(files, "sync", fail(number))
    summary = end(actor)
    file = tmp_path / ".incarnation.json.tmp"
    told = f"nothing can be written to {file} ({os.strerror(number)}): {remedy}, then give the same command"
    assert (summary["status"], summary["reason"]) == ("halted", told)
    assert not (tmp_path / "summary.json").exists()
    assert RunFolder(tmp_path).spent == 5.0


def test_run_that_cannot_write_its_end_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Hanging(make_request(tmp_path, seconds=coordinator_actor.FINISH_MARGIN_S + 0.2))
    monkeypatch.setattr(files, "sync", fail(errno.ENOSPC))
    summary = end(actor)
    assert summary["status"] == "halted"
    assert "make room there" in summary["reason"]
    assert RunFolder(tmp_path).finished() is None


class Deleting(CoordinatorActor):
    """Somebody deletes its folder."""

    async def _assemble(self) -> Coordinator:
        shutil.rmtree(self._folder.path)
        self._folder.next_incarnation()
        raise AssertionError


def test_run_whose_folder_is_deleted_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    summary = end(Deleting(make_request(folder)))
    assert summary["status"] == "halted"
    assert summary["reason"].startswith(f"the run folder {folder} is gone")
    assert not folder.exists()


def test_clock_that_is_set_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = make_request(tmp_path, spent_before=5.0)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert 5.0 <= request.spent < 60.0


def test_guard_outlives_a_look_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([OSError(errno.ESTALE, "Stale file handle"), HostFree(2**20, 2**30, 2**40)])

    def measure(folder: Path) -> HostFree:
        if isinstance(found := next(looks), OSError):
            raise found
        return found

    monkeypatch.setattr(coordinator_actor, "measure", measure)
    summary = end(Hanging(make_request(tmp_path, seconds=10.0)))
    assert summary["status"] == "halted"
    assert summary["ledger"]["counts"]["warnings/look failed"] == 1


def test_run_does_not_go_on_without_its_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_actor, "measure", lambda folder: None)
    summary = end(Hanging(make_request(tmp_path, seconds=10.0)))
    assert (summary["status"], summary["reason"]) == ("failed", "'NoneType' object has no attribute 'disk'")


def test_ledger_of_a_run_that_ends_while_it_starts_adds_up(tmp_path: Path) -> None:
    summary = end(Hanging(make_request(tmp_path, seconds=coordinator_actor.FINISH_MARGIN_S + 50.2, spent_before=50.0)))
    assert 50.2 < summary["spent_s"] < 53.0
    assert summary["ledger"]["seconds"].keys() == {"run", "rollouts", "rewards", "learner"}
    for activities in summary["ledger"]["seconds"].values():
        assert sum(activities.values()) == pytest.approx(summary["spent_s"], abs=5.0)


def test_only_a_failure_leaves_a_log_of_it(tmp_path: Path) -> None:
    assert end(Hurried(make_request(tmp_path)))["reason"] == "SIGTERM"
    assert not (tmp_path / "failure.log").exists()
    with pytest.raises(BadInput):
        end(Mistaken(make_request(tmp_path)))
    assert "Traceback" in (tmp_path / "failure.log").read_text()


def test_bad_input_of_an_actor_is_raised_and_written_down(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^lora\.rank=3 is not possible: use 4$"):
        end(Mistaken(make_request(tmp_path)))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("failed", "lora.rank=3 is not possible: use 4")


def test_remote_checkpoints_and_trackers_are_counted_and_their_faults_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        def begin(self, next_update: int) -> None:
            raise ConnectionError("no route to host")

    monkeypatch.setattr(remote_checkpoints, "LOOK_S", 0.01)
    monkeypatch.setattr(coordinator_actor, "make_tracking", lambda *_: Tracking({"fake": Dying()}))  # type: ignore[dict-item]
    request = make_request(tmp_path / "mine", seconds=coordinator_actor.FINISH_MARGIN_S + 2.5)
    request.config.run.name, request.config.checkpoint.mirror = "mine", f"file://{tmp_path}/far"
    (tmp_path / "mine").mkdir()
    summary = end(Hanging(request))
    counts = summary["ledger"]["counts"]
    assert counts["mirror/copies"] == 1
    assert counts["mirror/bytes"] > 0
    assert counts["warnings/fake"] >= 1
    (event,) = summary["events"]
    assert event["event"] == "fake does not take what it is given"
    assert event["detail"] == "ConnectionError: no route to host"
    state = Remote(request.config.checkpoint.mirror, "mine").state()
    assert state is not None
    assert state["files"]
