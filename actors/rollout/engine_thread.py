"""A vLLM engine in a thread of this process: vLLM's AsyncLLM starts a process that imports all of vLLM once more."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from actors.errors import ActorDied

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput, SamplingParams, TokensPrompt

T = TypeVar("T")


class EngineThread:
    """Makes an engine, steps it while it has requests, and ends it; nothing else touches the engine.

    Calls reach the thread through a queue, which it empties between two steps. Results go to the event loop that waits
    for them. An error in a step ends all requests, and those that follow, with ActorDied.
    """

    def __init__(self, make: "Callable[[], LLMEngine]") -> None:
        self._calls: SimpleQueue[tuple[Callable[[LLMEngine], Any], Future[Any]]] = SimpleQueue()
        self._takers: dict[str, Callable[[Any], object]] = {}
        self._closed = False
        started: Future[tuple[Any, Any]] = Future()
        Thread(target=self._live, args=(make, started), name="vllm-engine", daemon=True).start()
        self.vllm_config, self.tokenizer = started.result()

    async def call(self, work: "Callable[[LLMEngine], T]") -> T:
        """Return the result of work with the engine between two steps. Cancelled before its turn, it is not done."""
        return await asyncio.wrap_future(self._hand_over(work))

    async def request(
        self, request_id: str, prompt: "TokensPrompt", parameters: "SamplingParams", lora: Any
    ) -> "AsyncIterator[RequestOutput]":
        """Yield vLLM's outputs for a request, which is aborted if this iterator is closed before the last one."""
        loop = asyncio.get_running_loop()
        outputs: asyncio.Queue[RequestOutput | ActorDied] = asyncio.Queue()

        def add(engine: "LLMEngine") -> None:
            engine.add_request(request_id, prompt, parameters, lora_request=lora)
            self._takers[request_id] = lambda output: loop.call_soon_threadsafe(outputs.put_nowait, output)

        def abort(engine: "LLMEngine") -> None:
            self._takers.pop(request_id, None)
            engine.abort_request([request_id])

        finished = False
        try:
            await self.call(add)
            while not finished:
                output = await outputs.get()
                if isinstance(output, ActorDied):
                    raise output
                finished = output.finished
                yield output
        finally:
            if not finished:
                self._hand_over(abort)

    async def close(self) -> None:
        def end(engine: "LLMEngine") -> None:
            self._closed = True
            engine.engine_core.shutdown()

        await self.call(end)

    def _hand_over(self, work: "Callable[[LLMEngine], T]") -> Future[T]:
        result: Future[T] = Future()
        self._calls.put((work, result))
        return result

    def _live(self, make: "Callable[[], LLMEngine]", started: Future[tuple[Any, Any]]) -> None:
        why = self._serve(make, started)
        for take in self._takers.values():
            take(ActorDied(why))
        while True:
            _, result = self._calls.get()
            if result.set_running_or_notify_cancel():
                result.set_exception(ActorDied(why))

    def _serve(self, make: "Callable[[], LLMEngine]", started: Future[tuple[Any, Any]]) -> str:
        """Return why the engine serves no more."""
        try:
            engine = make()
            started.set_result((engine.vllm_config, engine.get_tokenizer()))
        except BaseException as error:
            started.set_exception(error)
            return f"its engine did not start: {error!r}"
        try:
            while not self._closed:
                self._answer_calls(engine)
                if self._takers:
                    self._step(engine)
        except Exception as error:
            traceback.print_exc()
            return f"in its engine: {error!r}"
        return "its engine is closed"

    def _answer_calls(self, engine: "LLMEngine") -> None:
        """Do what has been handed over; wait for it where there is nothing to step."""
        idle = not self._takers
        while idle or not self._calls.empty():
            work, result = self._calls.get()
            idle = False
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(work(engine))
                except Exception as error:  # the caller's to handle; the engine is well
                    result.set_exception(error)

    def _step(self, engine: "LLMEngine") -> None:
        for output in engine.step():
            take = self._takers.pop(output.request_id) if output.finished else self._takers[output.request_id]
            take(output)
