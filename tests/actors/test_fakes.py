"""The fakes: a call that reaches another process in reality takes time, so that anything may happen meanwhile."""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.messages import AdapterRef, Batch, Sampling
from actors.protocols import Engine, Learner, Verifier
from tests.fakes import FakeEngine, FakeLearner, FakeVerifier, FrailEngine, FrailVerifier, make_group, make_problem
from tests.virtual_time import run_virtually

ADAPTER = AdapterRef(0, 0, "nowhere")
GROUP = make_group(0, adapter=ADAPTER)
ARGUMENTS = {
    "adapter": ADAPTER,
    "index": 0,
    "problem": make_problem(0),
    "sampling": Sampling(1, 8, 1.0, 1.0, 0),
    "group": GROUP,
    "groups": (GROUP,),
    "batch": Batch(0, (GROUP,)),
    "progress": 0.5,
    "demonstrations": (),
    "incarnation": 1,
}
LOCAL = {"at_start"}  # the coordinator's own process does it


@pytest.mark.parametrize(
    ("make", "protocol"),
    [
        (FakeEngine, Engine),
        (FrailEngine, Engine),
        (FakeLearner, Learner),
        (FakeVerifier, Verifier),
        (FrailVerifier, Verifier),
    ],
)
def test_every_remote_call_takes_time(tmp_path: Path, make: Callable[[], Any], protocol: type) -> None:
    async def seconds(name: str) -> float:
        fake = make()
        fake.seconds = fake.start_seconds = 0.0
        fake.seconds_of = lambda _: 0.0
        if isinstance(fake, FakeLearner):
            fake.accumulated = Batch(0, (GROUP,))
        elif isinstance(fake, FakeEngine) and name != "load":
            await fake.load(ADAPTER)
        method, loop = getattr(fake, name), asyncio.get_running_loop()
        given = {**ARGUMENTS, "folder": None if name == "restore" else str(tmp_path)}
        before = loop.time()
        await method(*(given[parameter] for parameter in inspect.signature(method).parameters))
        return loop.time() - before

    for name, _ in inspect.getmembers(protocol, inspect.iscoroutinefunction):
        assert name in LOCAL or run_virtually(seconds(name)) > 0.0, name
