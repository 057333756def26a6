"""The thread that owns an engine, with a stand-in for vLLM's."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.errors import ActorDied
from actors.rollout.engine_thread import EngineThread


@dataclass
class Output:
    request_id: str
    finished: bool


@dataclass
class FakeLLM:
    """An engine whose requests take as many steps as their prompts say."""

    vllm_config: str = "config"
    steps: int = 0
    at_step: Callable[[], object] = lambda: None
    left: dict[str, int] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def get_tokenizer(self) -> str:
        return "tokenizer"

    def add_request(self, request_id: str, prompt: Any, parameters: Any, lora_request: Any) -> None:
        if prompt < 1:
            raise ValueError("empty prompt")
        self.left[request_id] = prompt

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            self.left.pop(request_id, None)

    def step(self) -> list[Output]:
        self.threads.add(threading.get_ident())
        self.steps += 1
        self.at_step()
        self.left = {name: count - 1 for name, count in self.left.items()}
        outputs = [Output(name, not count) for name, count in self.left.items()]
        self.left = {name: count for name, count in self.left.items() if count}
        return outputs

    @property
    def engine_core(self) -> "FakeLLM":
        return self

    def shutdown(self) -> None:
        self.left.clear()


def ask(thread: EngineThread, name: str, steps: Any) -> Coroutine[Any, Any, int]:
    async def count() -> int:
        return len([output async for output in thread.request(name, steps, None, None)])  # type: ignore[arg-type]

    return count()


def start(llm: FakeLLM) -> EngineThread:
    return EngineThread(lambda: llm)  # type: ignore[arg-type, return-value]


def test_requests_run_together_in_one_thread_and_calls_between_their_steps() -> None:
    async def scenario() -> None:
        llm = FakeLLM()
        thread = start(llm)
        assert (thread.vllm_config, thread.tokenizer) == ("config", "tokenizer")
        assert await asyncio.gather(ask(thread, "a", 3), ask(thread, "b", 5)) == [3, 5]
        assert await thread.call(lambda engine: engine.get_tokenizer()) == "tokenizer"
        assert len(llm.threads) == 1
        assert threading.get_ident() not in llm.threads
        await thread.close()
        with pytest.raises(ActorDied, match="closed"):
            await ask(thread, "c", 1)

    asyncio.run(scenario())


def test_error_of_a_call_or_a_request_is_its_callers_alone() -> None:
    async def scenario() -> None:
        thread = start(FakeLLM())
        refused, served = await asyncio.gather(ask(thread, "a", 0), ask(thread, "b", 3), return_exceptions=True)
        assert isinstance(refused, ValueError)
        assert served == 3
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda _: 1 // 0)
        assert await ask(thread, "c", 1) == 1

    asyncio.run(scenario())


def test_error_in_a_step_ends_all_requests_and_those_that_follow() -> None:
    async def scenario() -> None:
        llm = FakeLLM()

        def fail() -> None:
            if llm.steps == 4:
                raise RuntimeError("no memory")

        llm.at_step = fail
        thread = start(llm)
        asked = (ask(thread, "a", 9), ask(thread, "b", 9))
        ended = await asyncio.gather(*asked, return_exceptions=True)
        ended += await asyncio.gather(ask(thread, "c", 1), thread.call(len), return_exceptions=True)  # type: ignore[arg-type]
        assert len(ended) == 4
        for error in ended:
            assert isinstance(error, ActorDied)
            assert "no memory" in str(error)

    asyncio.run(scenario())


def test_cancelled_request_is_aborted() -> None:
    async def scenario() -> None:
        llm = FakeLLM()
        thread = start(llm)
        endless = asyncio.create_task(ask(thread, "endless", 10**9))
        await ask(thread, "a", 5)
        endless.cancel()
        await asyncio.wait({endless})
        await thread.call(lambda _: None)
        assert (llm.left, llm.aborted) == ({}, ["endless"])

    asyncio.run(scenario())


def test_hanging_step_keeps_calls_waiting_but_not_the_event_loop() -> None:
    """The supervisor's heartbeat is such a call."""

    async def scenario() -> None:
        llm, going = FakeLLM(), threading.Event()
        llm.at_step = going.wait
        thread = start(llm)
        asked = asyncio.create_task(ask(thread, "a", 2))
        while not llm.steps:
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(thread.call(lambda _: None), 0.2)
        going.set()
        assert await asked == 2
        await thread.call(lambda _: None)

    asyncio.run(scenario())


def test_engine_that_cannot_be_made_is_reported_where_it_was_asked_for() -> None:
    def make() -> Any:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        EngineThread(make)
