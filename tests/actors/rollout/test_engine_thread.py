"""The thread that owns an engine, with a stand-in for vLLM's."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.rollout.vllm_engine import EngineThread


class FakeLLM:
    """An engine whose requests take as many steps as their prompts say. at_step: called in each."""

    engine_core = SimpleNamespace(shutdown=lambda: None)

    def __init__(self, at_step: Callable[[], object] = lambda: None) -> None:
        self.at_step = at_step
        self.left: dict[str, int] = {}
        self.threads: list[int] = []

    def add_request(self, request_id: str, prompt: int, parameters: None, lora_request: None) -> None:
        if prompt < 1:
            raise ValueError("empty prompt")
        self.left[request_id] = prompt

    def abort_request(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.left.pop(request_id, None)

    def step(self) -> list[SimpleNamespace]:
        self.threads.append(threading.get_ident())
        self.at_step()
        self.left = {name: count - 1 for name, count in self.left.items()}
        outputs = [SimpleNamespace(request_id=name, finished=not count) for name, count in self.left.items()]
        self.left = {name: count for name, count in self.left.items() if count}
        return outputs


async def ask(thread: EngineThread, name: str, steps: Any) -> int:
    """Return the number of outputs of a request."""
    return len([output async for output in thread.request(name, steps, None, None)])  # type: ignore[arg-type]


def nothing(_: object) -> None: ...


Test = Callable[[], Coroutine[Any, Any, None]]


def in_a_loop(test: Test) -> Callable[[], None]:
    return lambda: asyncio.run(test())


def start(llm: FakeLLM) -> EngineThread:
    return EngineThread(lambda: llm)  # type: ignore[arg-type, return-value]


@in_a_loop
async def test_requests_share_one_thread():
    llm = FakeLLM()
    thread = start(llm)
    assert await asyncio.gather(ask(thread, "a", 3), ask(thread, "b", 5)) == [3, 5]
    assert len(set(llm.threads) | {threading.get_ident()}) == 2
    await thread.close()
    with pytest.raises(ActorDied, match="closed"):
        await ask(thread, "c", 1)


@in_a_loop
async def test_error_of_call_reaches_caller_alone():
    thread = start(FakeLLM())
    refused, served = await asyncio.gather(ask(thread, "a", 0), ask(thread, "b", 3), return_exceptions=True)
    assert isinstance(refused, ValueError)
    assert served == 3
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda _: 1 // 0)
    assert await ask(thread, "c", 1) == 1


@in_a_loop
async def test_error_in_step_ends_all_requests():
    def fail() -> None:
        if len(llm.threads) == 4:
            raise RuntimeError("no memory")

    llm = FakeLLM(fail)
    thread = start(llm)
    ended = await asyncio.gather(ask(thread, "a", 9), ask(thread, "b", 9), return_exceptions=True)
    for error in (*ended, *await asyncio.gather(ask(thread, "c", 1), thread.call(nothing), return_exceptions=True)):
        assert isinstance(error, ActorDied)
        assert "no memory" in str(error)
    closed: list[bool] = []
    llm.engine_core = SimpleNamespace(shutdown=lambda: closed.append(True))
    await thread.close()
    assert closed


@in_a_loop
async def test_cancelled_request_is_aborted():
    llm = FakeLLM()
    thread = start(llm)
    endless = asyncio.create_task(ask(thread, "endless", 10**9))
    await ask(thread, "a", 5)
    endless.cancel()
    await asyncio.wait({endless})
    await thread.call(nothing)
    assert not llm.left


@in_a_loop
async def test_hanging_step_blocks_calls_not_the_loop():
    """The supervisor's heartbeat is such a call."""
    going = threading.Event()
    llm = FakeLLM(going.wait)
    thread = start(llm)
    asked = asyncio.create_task(ask(thread, "a", 2))
    while not llm.threads:
        await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(thread.call(nothing), 0.2)
    going.set()
    assert await asked == 2
    await thread.call(nothing)
