"""The driver with a coordinator that crashes, hangs or raises. Ray is a fake here, with calls for references."""

import errno
import json
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from rich.console import Console

from microbudget_rl.actors.runtime import cause_of_death, supervision
from microbudget_rl.actors.runtime.supervision import DEATHS_IN_A_ROW
from microbudget_rl.actors.storage import files
from microbudget_rl.actors.storage.documents import RunSummary
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.launch.session import watch
from microbudget_rl.launch.session.watch import Watch
from tests.actors.coordinator.test_actor import make_request

Call = Callable[[], Any]
Follow = Callable[..., RunSummary]

DONE = RunSummary(status="completed")


def failing(error: Exception) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise error

    return call


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause before a restart, and no actors of a Ray."""
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(cause_of_death, "REAPED_S", 0.0)
    monkeypatch.setattr(watch, "end_actors", lambda: None)
    monkeypatch.setattr(watch, "free_learners", lambda: None)


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Watch a coordinator that comes up after so many looks and ends by a call; return the summary."""

    def run(up: Call = lambda: 1, ending: Call = dict, looks: int = 0) -> dict[str, Any]:
        left, ready = iter([False] * looks), [True]

        def wait(references: list[Call], timeout: float) -> tuple[list[Call], list[Call]]:
            ready[0] = next(left, True)
            return (references if ready[0] else [], [])

        def get(reference: Call, timeout: float | None = None) -> Any:
            if timeout is not None and not ready[0]:
                raise GetTimeoutError
            return reference()

        coordinator = SimpleNamespace(
            __ray_call__=SimpleNamespace(remote=lambda _: up),
            run=SimpleNamespace(remote=lambda: ending),
            stop=SimpleNamespace(remote=lambda _: None),
        )
        actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: coordinator))
        ray = SimpleNamespace(
            remote=lambda _: actor,
            get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "0" * 56),
            wait=wait,
            get=get,
            kill=lambda _: None,
        )
        monkeypatch.setattr(watch, "ray", ray)
        return Watch(make_request(tmp_path, spent_before=50.0), Console(quiet=True), tmp_path).follow()

    return run


@pytest.mark.parametrize("error", [OSError("No space left"), BadInput("lora.rank=3 is not possible")])
def test_error_of_the_coordinator_is_raised_or_told(follow: Follow, tmp_path: Path, error: Exception):
    """As Ray hands it on."""
    text = f"Traceback: somewhere\n{type(error).__name__}: {error}"
    ending = failing(RayTaskError("run", text, error).as_instanceof_cause())
    if isinstance(error, BadInput):
        with pytest.raises(BadInput, match=r"lora\.rank=3"):
            follow(ending=ending)
        assert not (tmp_path / "summary.json").exists()
        return
    summary = follow(ending=ending)
    assert summary.content == json.loads((tmp_path / "summary.json").read_text())
    assert summary.status == "failed"
    assert "OSError: No space left" in summary.reason
    assert "Traceback: somewhere" in (tmp_path / "failure.log").read_text()


def test_stop_of_the_driver_itself_is_no_silence_of_the_coordinator(
    follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each look takes an hour, as with Ctrl-Z: the answer is there at the second. The time is kept meanwhile."""
    hours = iter(range(0, 3_600_000, 3600))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(hours)))
    assert follow(ending=lambda: DONE, looks=1) == DONE
    assert RunRecord(tmp_path).spent >= 50.0


def test_coordinator_that_never_answers_ends_the_run(follow: Follow, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "SILENCE_S", 3 * watch.POLL_S)
    summary = follow(looks=1000)
    assert summary.status == "failed"
    assert "2 s" in summary.reason


def test_full_disk_ends_the_run_before_there_is_a_coordinator(follow: Follow, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "sync", failing(OSError(errno.ENOSPC, "No space left on device")))
    summary = follow(looks=1)
    assert summary.status == "halted"
    assert "make room" in summary.reason


def dying(times: int, then: Call, meanwhile: Call = lambda: None) -> Call:
    """A call in which so many coordinators crash, each after it has done something."""
    deaths = iter(range(times))

    def call() -> Any:
        if next(deaths, None) is None:
            return then()
        meanwhile()
        raise RayActorError

    return call


def test_coordinators_that_save_something_may_die_more_often(follow: Follow, tmp_path: Path):
    versions, latest = count(1), tmp_path / "checkpoints" / "latest"

    def save() -> None:
        folder = latest.with_name(f"update-{next(versions):06d}")
        folder.mkdir(parents=True)
        latest.unlink(missing_ok=True)
        latest.symlink_to(folder.name)

    assert follow(ending=dying(DEATHS_IN_A_ROW + 1, lambda: DONE, save)) == DONE
    assert [event.update for event in RunRecord(tmp_path).events()] == [1, 2, 3, 4]


def test_run_that_has_ended_or_is_told_to_stop_is_not_started_again(follow: Follow, tmp_path: Path):
    summary = follow(ending=dying(1, dict, lambda: signal.raise_signal(signal.SIGTERM)))
    assert (summary.status, summary.reason) == ("interrupted", "SIGTERM")
    assert follow(ending=dying(1, dict)).content == json.loads((tmp_path / "summary.json").read_text())
