"""Generation with vLLM, in a thread of this process, under versioned LoRA adapters. Knows vLLM and no Ray.

vLLM's AsyncLLM starts a process that imports all of vLLM once more: the first response takes 18 to 20 s instead of
11 to 14, 18 s of CPU time instead of 11, and 2.6 GiB instead of 2.2 (vLLM 0.32, two cores of an EPYC). The tokens per
second of CPU time are the same. The work that AsyncLLM does beside the engine is 7 µs per token, 1 ms per step of 128
samples; vLLM's asynchronous scheduling hides it behind the GPU's next step.
"""

import asyncio
import contextlib
import itertools
import os
import re
import traceback
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import AdapterRef, Group, Request, Sample
from microbudget_rl.actors.models.files import stop_token_ids
from microbudget_rl.actors.models.sizes import adapter_slots, answers_alone
from microbudget_rl.actors.rollout.pool import AdapterSlots
from microbudget_rl.actors.rollout.vllm_plugin import check_registered
from microbudget_rl.actors.rollout.vllm_settings import engine_settings, set_environment
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.runtime.process import end_without_gpu
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput, SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest


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


@contextlib.contextmanager
def memory_faults(config: Config, first: bool) -> Iterator[None]:
    """Raise BadInput if vLLM finds too little memory at a first start: before a later one, a neighbour may leave."""
    try:
        yield
    except ValueError as error:
        fault = re.split(r"\.? (?:Try|Decrease|Increase) ", str(error))[0]
        if not first or "memory" not in fault:
            raise
        remedy = f"another process took memory of the GPU after the plan ({fault}); nvidia-smi shows which, end it"
        if "cache" in fault:
            remedy = (
                f"rollout.max_concurrent_samples={config.rollout.concurrent_samples}: no room for the KV cache"
                f" ({fault}); give half as many, or learner.gradient_checkpointing=on"
            )
        raise BadInput(remedy) from error


class RolloutEngine:
    """A vLLM engine on one share of the machine. Its calls raise ActorDied once the engine has failed."""

    def __init__(self, config: Config, model_path: str, share: Share, cache_blocks: int | None = None) -> None:
        """cache_blocks: size of the KV cache on a GPU; if None, vLLM measures free memory."""
        set_environment(share, config.rollout.kv_cache_gib)
        if config.run.deterministic and not share.cores:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"

        def make() -> "LLMEngine":
            from vllm import EngineArgs, LLMEngine
            from vllm.v1.executor import Executor

            made = EngineArgs(**engine_settings(config, model_path, share, cache_blocks)).create_engine_config()
            check_registered()
            with memory_faults(config, not share.cores and cache_blocks is None):
                return LLMEngine(made, Executor.get_class(made), log_stats=False, multiprocess_mode=False)

        self._thread = EngineThread(make)
        self.vllm_config = self._thread.engine.vllm_config
        self._tokenizer = self._thread.engine.get_tokenizer()
        self._stop_ids = stop_token_ids(config.model, self._tokenizer)
        self._adapters = AdapterSlots(adapter_slots(config), self._unload)
        self._lora_requests: dict[str, LoRARequest] = {}
        self._lora_ids = itertools.count(1)
        self._request_ids = itertools.count()
        self._deterministic = config.run.deterministic
        self._on_cpu = bool(share.cores)
        # On a CPU a sample's last digits depend on what else is in a step.
        alone = answers_alone(config, "cpu" if self._on_cpu else "cuda")
        self._turn = asyncio.Lock() if alone else contextlib.nullcontext()

    async def cache_blocks(self) -> int:
        """Return the size of the KV cache in vLLM's blocks."""
        return int(self.vllm_config.cache_config.num_gpu_blocks or 0)

    async def alive(self) -> None:
        """Return between two steps of the engine: never, if one of them hangs or the GPU is lost."""
        await self._thread.call(lambda _: None if self._on_cpu else end_without_gpu())

    async def load(self, adapter: AdapterRef) -> None:
        """Load an adapter under its own name, after waiting for a free slot, which stays free if loading fails."""
        from vllm.lora.request import LoRARequest

        await self._adapters.occupy(adapter)
        request = self._lora_requests[adapter.name] = LoRARequest(adapter.name, next(self._lora_ids), adapter.path)
        try:
            if not await self._thread.call(lambda engine: engine.add_lora(request)):
                raise RuntimeError(f"vLLM did not load adapter {adapter.name} from {adapter.path}")
        except BaseException:
            await self._adapters.retire(adapter)
            raise

    async def retire(self, adapter: AdapterRef) -> None:
        await self._adapters.retire(adapter)

    async def generate(self, request: Request) -> Group:
        """Sample all responses to a problem; the request ends on the version it started on."""
        async with self._adapters.request(request.adapter):
            [output] = [output async for output in self._outputs(request)]
        return Group(request.index, request.problem, request.adapter, tuple(map(self._sample, output.outputs)))

    async def stream(self, request: Request) -> AsyncIterator[str]:
        """Yield the text of one response to a problem as it comes."""
        async with self._adapters.request(request.adapter):
            async for output in self._outputs(request, in_parts=True):
                yield output.outputs[0].text

    async def close(self) -> None:
        await self._thread.close()

    async def _outputs(self, request: Request, in_parts: bool = False) -> "AsyncIterator[RequestOutput]":
        """Yield vLLM's outputs: one with all token ids, or in parts, each with the next part of the text."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        parameters = SamplingParams(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            stop_token_ids=self._stop_ids,
            logprobs=0,
            flat_logprobs=True,
            detokenize=in_parts,
            output_kind=RequestOutputKind.DELTA if in_parts else RequestOutputKind.FINAL_ONLY,
        )
        prompt = TokensPrompt(prompt_token_ids=list(request.problem.prompt_ids))
        request_id = str(next(self._request_ids))
        if self._deterministic:
            prompt["cache_salt"] = request_id  # values from an earlier batch may differ in the last digits
        lora = self._lora_requests[request.adapter.name] if request.adapter else None
        async with self._turn:
            async for output in self._thread.request(request_id, prompt, parameters, lora):
                yield output

    def _sample(self, completion: Any) -> Sample:
        """Return a response; with `logprobs=0` vLLM gives one log-probability per token, the sampled token's."""
        flat, token_ids = completion.logprobs, array("i", completion.token_ids)
        assert flat.token_ids == completion.token_ids
        return Sample(
            token_ids=token_ids,
            logprobs=array("d", flat.logprobs),
            text=self._tokenizer.decode(token_ids, skip_special_tokens=True),
            finish_reason=completion.finish_reason,
        )

    async def _unload(self, adapter: AdapterRef) -> None:
        lora = self._lora_requests.pop(adapter.name)
        await self._thread.call(lambda engine: engine.remove_lora(lora.lora_int_id))
