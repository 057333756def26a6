"""A vLLM engine in a thread of this process.

vLLM's AsyncLLM starts a process that imports all of vLLM once more: the first response takes 18 to 20 s instead of
11 to 14, 18 s of CPU time instead of 11, and 2.6 GiB instead of 2.2 (vLLM 0.32, two cores of an EPYC). The tokens per
second of CPU time are the same. The work that AsyncLLM does beside the engine is 7 µs per token, 1 ms per step of 128
samples; vLLM's asynchronous scheduling hides it behind the GPU's next step.
"""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from actors.errors import ActorDied

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput, SamplingParams, TokensPrompt

T = TypeVar("T")


class EngineThread:
    """The one thread that makes an engine, steps it while it has requests, and ends it.

    Steps and calls take turns. Outputs go to the event loop that waits for them. An error in a step ends all requests,
    and every later call, with ActorDied.
    """

    def __init__(self, make: "Callable[[], LLMEngine]") -> None:
        self._thread = ThreadPoolExecutor(1, "vllm-engine")
        self._takers: dict[str, Callable[[Any], object]] = {}
        self._stepping = False
        self._ended: ActorDied | None = None
        self.engine = self._thread.submit(make).result()  # others only read its settings

    async def call(self, work: "Callable[[LLMEngine], T]") -> T:
        """Return the result of work with the engine between two steps. It is not done if cancelled before its turn."""
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
            if not self._stepping:
                self._stepping = True
                self._thread.submit(self._step)

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
        """End all requests and vLLM's core, also after an error in a step."""

        def close() -> None:
            self._end("its engine is closed")
            self.engine.engine_core.shutdown()

        await asyncio.wrap_future(self._thread.submit(close))

    def _hand_over(self, work: "Callable[[LLMEngine], T]") -> Future[T]:
        def do() -> T:
            if self._ended:
                raise self._ended
            return work(self.engine)

        return self._thread.submit(do)

    def _step(self) -> None:
        """Step the engine, then do the calls that have come meanwhile, and so on."""
        if not self._takers:
            self._stepping = False
            return
        try:
            for output in self.engine.step():
                take = self._takers.pop(output.request_id) if output.finished else self._takers[output.request_id]
                take(output)
        except Exception as error:  # whatever it is, every request gets it and the actor is replaced
            traceback.print_exc()
            self._end(f"in its engine: {error!r}")
        self._thread.submit(self._step)

    def _end(self, why: str) -> None:
        self._ended = ActorDied(why)
        for take in self._takers.values():
            take(self._ended)
        self._takers.clear()
