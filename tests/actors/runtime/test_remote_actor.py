"""Actors of Ray that crash and hang, and the learner's restart."""

import asyncio
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import ray
from ray._private import ray_constants

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.runtime import remote_actor as remote
from microbudget_rl.actors.runtime.placement import Placement, Share
from microbudget_rl.actors.runtime.ray_session import start_ray
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed


class Patient:
    """Crashes, hangs and raises on request."""

    def __init__(self, complaint: str = "", start_s: float = 0.0) -> None:
        time.sleep(start_s)
        if complaint:
            raise BadInput(complaint)

    async def alive(self) -> None: ...

    async def process_id(self) -> int:
        return os.getpid()

    async def die(self, number: int) -> None:
        print("these were its last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)

    async def wait(self) -> None:
        await asyncio.sleep(600)

    async def block(self) -> None:
        time.sleep(600)  # the event loop answers nothing meanwhile

    async def complain(self) -> None:
        raise BadInput("lora.rank=3 is not possible: use 4")

    async def fail(self) -> None:
        raise ActorDied("in its engine: no memory")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray as a command starts it."""
    config = changed(Config(), {"run.name": "patients"})
    placement = Placement("cpu", (Share(threads=2),), (), 1)
    with (
        patch.dict(os.environ, {"RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1"}),
        patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False),
        tempfile.TemporaryDirectory() as temporary,
    ):
        start_ray(config, placement, dashboard=False, temporary=Path(temporary))
        yield
        ray.shutdown()


async def cause_of(actor: RemoteActor, method: str, *arguments: Any, deadline_s: float | None = None) -> str:
    with pytest.raises(ActorDied) as caught:
        await actor.call(method, *arguments, deadline_s=deadline_s)
    return str(caught.value)


async def test_death_is_told_with_its_last_words_and_the_actor_starts_again():

    actor = RemoteActor(Patient, "patient", Share())
    first = await actor.call("process_id")
    while actor._process.watcher is None:
        await asyncio.sleep(0.05)
    cause = await cause_of(actor, "die", signal.SIGKILL)
    assert cause.startswith("patient died: ")
    assert "these were its last words" in cause
    assert await cause_of(actor, "alive") == cause
    actor.start()
    assert await actor.call("process_id") != first
    assert "SIGSEGV" in await cause_of(actor, "die", signal.SIGSEGV)
    actor.kill()


async def test_actor_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch):
    """By a call's deadline, or by the heartbeat."""

    slow = RemoteActor(Patient, "slow-patient", Share())
    await slow.call("alive")
    other = asyncio.create_task(cause_of(slow, "wait"))
    said = await cause_of(slow, "wait", deadline_s=1.0)
    assert "`wait` within 1 s" in said
    assert await other == said
    monkeypatch.setattr(remote, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(remote, "SILENCE_S", 3.0)
    silent = RemoteActor(Patient, "silent-patient", Share())
    await silent.call("alive")
    assert "did not answer for 3 s" in await cause_of(silent, "block")


@pytest.mark.parametrize(("factor", "left_s"), [(0.1, math.inf), (1e6, 1.0)])
async def test_a_restart_that_hangs_ends(factor: float, left_s: float, monkeypatch: pytest.MonkeyPatch):
    """After a few times the first start, or half of what is left of the budget."""
    monkeypatch.setattr(remote, "RESTART_FACTOR", factor)
    monkeypatch.setattr(remote, "LEAST_RESTART_S", 0.5)
    monkeypatch.setattr(RemoteActor, "ends", time.monotonic() + left_s)

    actor = RemoteActor(Patient, f"late-patient-{factor}", Share(), "")
    await actor.call("alive")
    while actor._process.watcher is None:
        await asyncio.sleep(0.05)
    actor.start(600.0)
    assert "did not start within" in await cause_of(actor, "alive")


async def test_actor_with_more_to_do_than_ray_lets_in_by_itself_still_answers():

    actor = RemoteActor(Patient, "busy-patient", Share())
    waiting = [asyncio.create_task(actor.call("wait")) for _ in range(1100)]
    await asyncio.sleep(0)
    await actor.call("alive", deadline_s=240.0)
    actor.kill()
    assert all(isinstance(end, ActorDied) for end in await asyncio.gather(*waiting, return_exceptions=True))


async def test_errors_come_back_as_they_were_raised():

    actor = RemoteActor(Patient, "critic", Share())
    with pytest.raises(BadInput, match=r"^lora\.rank=3 is not possible: use 4$"):
        await actor.call("complain")
    assert await cause_of(actor, "fail") == "critic died: in its engine: no memory"
    await actor.call("alive")
    stillborn = RemoteActor(Patient, "stillborn", Share(), "model.path=x does not exist")
    with pytest.raises(BadInput, match=r"^model\.path=x does not exist$"):
        await stillborn.call("alive")
    actor.kill()
