"""Ends of runs whose actors never come up."""

import asyncio
import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.coordinator import actor as coordinator
from microbudget_rl.actors.coordinator.actor import CoordinatorActor, StartActors
from microbudget_rl.actors.coordinator.context import RunRequest
from microbudget_rl.actors.errors import ActorDied, Interrupted
from microbudget_rl.actors.messages import ProblemSet
from microbudget_rl.actors.rollout.shared_weights import SharedWeights
from microbudget_rl.actors.runtime.host_resources import HostFree, HostNeeds
from microbudget_rl.actors.runtime.placement import place
from microbudget_rl.actors.storage import files
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.tracking import Tracking
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.training_state import misfit

pytestmark = pytest.mark.long


async def hang(*_: Any) -> Any:
    """Start engines that never come up."""
    await asyncio.Event().wait()


def raising(error: BaseException) -> StartActors:
    async def start(*_: Any) -> Any:
        raise error

    return start


async def write(request: RunRequest, *_: Any) -> Any:
    await RunFolder(request.folder).next_incarnation()


async def delete(request: RunRequest, *_: Any) -> Any:
    request.folder.rename(request.folder.with_name("elsewhere"))  # at once, unlike a deletion
    await RunFolder(request.folder).next_incarnation()


LITTLE_DISK = HostFree(2**20, 2**30, 2**30, 2**40)


def make_request(folder: Path, seconds: float = 600.0, spent_before: float = 0.0) -> RunRequest:
    return RunRequest(
        config=changed(Config(), {"budget.minutes": seconds / 60}),
        folder=folder,
        model_path="nowhere",
        placement=place((0,), 0),
        problems=ProblemSet((), (), {}),
        host_needs=HostNeeds(disk=2**30, checkpoint=2**20, temporary=0, shared_memory=2**20, memory=2**30),
        hardware="4 cores",
        started_at=time.monotonic(),
        spent_before=spent_before,
    )


def end(request: RunRequest, start: StartActors = hang, stop: bool = False) -> dict[str, Any]:
    """Run an actor to its end; return the summary."""
    actor = CoordinatorActor(request, start, misfit)

    async def scenario() -> dict[str, Any]:
        ending = asyncio.create_task(actor.run())
        await asyncio.sleep(0)
        if stop:
            await actor.stop("SIGTERM")
        return await ending

    return asyncio.run(scenario())


@pytest.mark.parametrize("stop", [False, True])
def test_start_that_hangs_ends_with_the_budget_or_when_told_to(tmp_path: Path, stop: bool):
    request = make_request(tmp_path, seconds=coordinator.FINISH_MARGIN_S + 50.2, spent_before=50.0)
    summary = end(request, stop=stop)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary.content
    if stop:
        assert (summary.status, summary.reason) == ("interrupted", "SIGTERM")
        return
    assert summary.status == "budget_exhausted"
    assert "starting" in summary.reason
    assert summary.spent_s >= 50.2
    assert summary.ledger.seconds.keys() == {"run", "rollouts", "rewards", "learner"}
    for activities in summary.ledger.seconds.values():
        assert abs(sum(activities.values()) - summary.spent_s) < 30.0


@pytest.mark.parametrize("noted", [True, False])
def test_disk_that_runs_full_halts_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: bool):
    """Looks that fail change nothing about it, nor an event that cannot be written."""
    faults = [OSError(errno.ESTALE, "Stale file handle"), ValueError("max")]  # a control group's file of another format
    looks = iter([*faults, LITTLE_DISK, LITTLE_DISK, LITTLE_DISK])

    def measure(folder: Path) -> HostFree:
        if isinstance(found := next(looks), Exception):
            raise found
        return found

    def append(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(coordinator, "measure", measure)
    if not noted:
        monkeypatch.setattr(RunFolder, "append_event", append)
    looked = list[object]()
    monkeypatch.setattr(coordinator.Copies, "look", lambda copies: looked.append(copies))
    request = make_request(tmp_path)
    summary = end(replace(request, config=changed(request.config, {"checkpoint.copy": "true"})))
    assert len(looked) >= 3, "a look that fails is no obstacle to copies"
    assert summary.status == "halted"
    assert "the run folder" in summary.reason
    if noted:
        assert [event.event for event in summary.events] == ["disk low"]
        counts = summary.ledger.counts
        assert (counts["warnings/disk"], counts["warnings/look failed"]) == (1, 2)


@pytest.mark.parametrize(
    ("number", "start", "named"),
    [
        (errno.ENOSPC, write, (".incarnation.json.tmp", "make room")),
        (errno.EROFS, write, (".incarnation.json.tmp", "writable")),
        (errno.ENOSPC, hang, ("make room",)),
    ],
)
def test_disk_that_takes_nothing_more_halts_the_run(
    number: int, start: StartActors, named: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While it starts, or when it cannot write its end."""

    def sync(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    RunFolder(tmp_path).write_spent(5.0)
    request = make_request(tmp_path, seconds=coordinator.FINISH_MARGIN_S + 5.2, spent_before=5.0)
    actor = CoordinatorActor(request, start, misfit)
    monkeypatch.setattr(files, "sync", sync)
    summary = asyncio.run(actor.run())
    assert summary.status == "halted"
    assert all(part in summary.reason for part in named)
    assert RunFolder(tmp_path).finished() is None
    assert RunFolder(tmp_path).spent == 5.0


def test_run_whose_folder_is_deleted_says_so_and_leaves_nothing(tmp_path: Path):
    folder = tmp_path / "run"
    request = make_request(folder)
    config = changed(request.config, {"run.report_to": []})  # a logger's thread may bring a part of the folder back
    summary = end(replace(request, config=config), delete)
    assert summary.status == "halted", summary.reason
    assert str(folder) in summary.reason
    assert not (folder / "summary.json").exists()


def test_clock_that_is_set_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    request = make_request(tmp_path, spent_before=5.0)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert 5.0 <= request.spent < 1e6


def test_weights_that_are_given_up_end_the_run(tmp_path: Path):
    """Before the engines that map them are restarted in vain."""

    class Lost(SharedWeights):
        def __init__(self) -> None: ...

        def check(self) -> None:
            raise ActorDied("weights died 3 times in a row")

    async def start(_: Any, started: Any, *__: Any) -> Any:
        started.append(Lost())
        await hang()

    summary = end(make_request(tmp_path), start)
    assert (summary.status, summary.reason) == ("failed", "weights died 3 times in a row")


def test_bad_input_of_an_actor_is_raised_and_written_down(tmp_path: Path):
    """A failure alone leaves a log."""
    assert end(make_request(tmp_path), raising(Interrupted("SIGTERM"))).reason == "SIGTERM"
    assert not (tmp_path / "failure.log").exists()
    mistake = BadInput("lora.rank=3 is not possible: use 4")
    with pytest.raises(BadInput) as raised:
        end(make_request(tmp_path), raising(mistake))
    assert raised.value is mistake
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("failed", str(mistake))
    assert "Traceback" in (tmp_path / "failure.log").read_text()


def test_losses_of_loggers_are_counted_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Dying:
        def begin(self, next_update: int) -> None:
            raise ConnectionError("no route to host")

    monkeypatch.setattr(coordinator, "make_tracking", lambda *_: Tracking({"fake": Dying()}))  # type: ignore[dict-item]
    (tmp_path / "mine").mkdir()
    summary = end(make_request(tmp_path / "mine", seconds=coordinator.FINISH_MARGIN_S + 2.5))
    (event,) = summary.events
    assert summary.ledger.counts["warnings/fake"] >= 1
    assert (event.event, "no route to host" in event.detail) == ("fake logger failed", True)


def test_a_fallback_is_an_event_once_per_coordinator(tmp_path: Path):
    async def start(request: RunRequest, _: Any, __: Any, record: Any) -> Any:
        for actor in ("learner", "rollout-0", "learner"):
            record(actor, EventKind.FALLBACK, "plain kernels")
        raise BadInput("enough")

    with pytest.raises(BadInput):
        end(make_request(tmp_path), start)
    assert [event.event for event in RunFolder(tmp_path).events()] == ["learner falls back", "rollout-0 falls back"]
