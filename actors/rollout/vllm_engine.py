"""Generation with vLLM's AsyncLLM under versioned LoRA adapters. Knows vLLM and no Ray."""

import asyncio
import contextlib
import itertools
import os
import tempfile
from array import array
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actors.errors import ActorDied
from actors.messages import AdapterRef, Group, Problem, Sample, Sampling
from actors.models.files import stop_token_ids
from actors.models.sizes import ADAPTER_SLOTS, answers_alone, longest_sample, padded_rank
from actors.rollout.adapter_slots import AdapterSlots
from actors.rollout.lora_kernels import write_kernel_sizes
from actors.runtime.cause_of_death import describe_exit
from actors.runtime.placement import Share
from conf.schema import Config, LoraConfig

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.sampling_params import RequestOutputKind

T = TypeVar("T")

CPU_BLOCK = 32
"""Tokens of a KV-cache block on the CPU: the smallest its kernels like. Only whole blocks are shared between requests,
and vLLM's default of 128 is longer than a short prompt, which would then be computed once per sample."""

CPU_BATCHED_TOKENS = 2048
"""Tokens of one engine step on the CPU: beyond that a longer batch is no faster, and running requests would stall."""

ALIVE_CHECK_S = 1.0
"""Between two looks whether the engine process still lives while it owes an answer."""

SMALL_SHARE = 0.01
"""Share of a card that vLLM checks to be free. It does so even where the size of its KV cache is given, when nothing
depends on it: so this is small."""


class RolloutEngine:
    """One vLLM engine on one share of the machine. Its calls raise ActorDied once a process of vLLM's is gone."""

    def __init__(self, config: Config, model_path: str, share: Share, cache_blocks: int | None = None) -> None:
        """cache_blocks: size of the KV cache on a card. If None, vLLM measures what is free, which nobody else may use
        meanwhile.
        """
        set_environment(share, config.rollout.kv_cache_gib)

        if config.run.deterministic and not share.cores:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"

        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        if not share.cores and config.rollout.lora_kernel_sizes:
            _use_kernel_sizes()
        context = longest_sample(config)
        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=model_path,
                dtype=config.model.dtype,  # type: ignore[arg-type]  # the schema allows what vLLM takes
                seed=config.run.seed,
                max_model_len=context,
                # The adapter check's prompts would otherwise wait for running samples to end.
                max_num_seqs=config.rollout.max_concurrent_samples + config.adapter_check.problems,
                **lora_settings(config.lora),
                logprobs_mode="processed_logprobs",
                disable_log_stats=True,
                # With it, what an engine step holds depends on how soon the one before is done.
                async_scheduling=False if config.run.deterministic else None,
                **(cpu_settings(context) if share.cores else card_settings(share, cache_blocks)),
            )
        )
        self._tokenizer = self._llm.get_tokenizer()
        self._stop_ids = stop_token_ids(config.model, self._tokenizer)
        self._adapters = AdapterSlots(ADAPTER_SLOTS, self._unload)
        self._lora_requests: dict[str, Any] = {}
        self._lora_ids = itertools.count(1)
        self._request_ids = itertools.count()
        self._deterministic = config.run.deterministic
        self._turn = asyncio.Lock() if answers_alone(config, "cpu" if share.cores else "cuda") else None

    async def cache_blocks(self) -> int:
        """Return the size of the KV cache in vLLM's blocks."""
        return int(self._llm.vllm_config.cache_config.num_gpu_blocks or 0)

    async def alive(self) -> None:
        """Return once the engine has answered between two of its steps."""
        await self._answer(self._llm.is_sleeping())

    async def load(self, adapter: AdapterRef) -> None:
        """Load an adapter under its own name, after waiting for a free slot, which stays free if loading fails."""
        from vllm.lora.request import LoRARequest

        await self._adapters.occupy(adapter)
        request = self._lora_requests[adapter.name] = LoRARequest(adapter.name, next(self._lora_ids), adapter.path)
        try:
            if not await self._answer(self._llm.add_lora(request)):
                raise RuntimeError(f"vLLM did not load adapter {adapter.name} from {adapter.path}")
        except BaseException:
            await self._adapters.retire(adapter)
            raise

    async def retire(self, adapter: AdapterRef) -> None:
        await self._adapters.retire(adapter)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        """Draw all samples of a problem; the request ends on the version it started on."""
        async with self._adapters.request(adapter):
            output = await self._generate(problem, adapter and self._lora_requests[adapter.name], sampling)
        return Group(index, problem, adapter, tuple(self._sample(completion) for completion in output.outputs))

    async def stream(self, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> AsyncIterator[str]:
        """Yield the text of one sample of a problem as it comes."""
        from vllm.sampling_params import RequestOutputKind

        async with self._adapters.request(adapter):
            lora = adapter and self._lora_requests[adapter.name]
            async for output in self._request(problem, lora, sampling, RequestOutputKind.DELTA):
                yield output.outputs[0].text

    async def close(self) -> None:
        self._llm.shutdown()

    async def _generate(self, problem: Problem, lora: Any, sampling: Sampling) -> "RequestOutput":
        from vllm.sampling_params import RequestOutputKind

        return [output async for output in self._request(problem, lora, sampling, RequestOutputKind.FINAL_ONLY)][-1]

    async def _request(
        self, problem: Problem, lora: Any, sampling: Sampling, kind: "RequestOutputKind"
    ) -> "AsyncIterator[RequestOutput]":
        """Yield vLLM's outputs: one with all token ids, or of a stream, each with the next part of the text."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            stop_token_ids=self._stop_ids,
            logprobs=0,
            detokenize=kind == RequestOutputKind.DELTA,
            output_kind=kind,
        )
        prompt, request_id = TokensPrompt(prompt_token_ids=list(problem.prompt_ids)), str(next(self._request_ids))
        if self._deterministic:
            prompt["cache_salt"] = request_id  # what was computed before in another batch may differ in the last digits
        ask = self._alone if self._turn else self._llm.generate
        with self._cause_of_death():
            async for output in ask(prompt, parameters, request_id=request_id, lora_request=lora):
                yield output

    async def _alone(
        self, prompt: Any, parameters: Any, request_id: str, lora_request: Any
    ) -> "AsyncIterator[RequestOutput]":
        """Answer a request while the engine has no other. It is paused until it has all the samples: vLLM sends them to
        it one by one, and on a processor a sample's last digits depend on what else is in a step.
        """
        assert self._turn
        async with self._turn:
            await self._answer(self._llm.pause_generation(mode="keep", clear_cache=False))
            try:
                try:
                    answer = await self._llm.add_request(request_id, prompt, parameters, lora_request=lora_request)
                finally:
                    await self._answer(self._llm.resume_generation())
                finished = False
                while not finished:
                    output: Any = await answer.get()
                    finished = output.finished
                    yield output
            except (asyncio.CancelledError, GeneratorExit):
                await self._llm.abort(request_id)
                raise

    def _sample(self, completion: Any) -> Sample:
        token_ids = array("i", completion.token_ids)
        logprobs = (step[token].logprob for token, step in zip(token_ids, completion.logprobs, strict=True))
        return Sample(
            token_ids=token_ids,
            logprobs=array("d", logprobs),
            text=self._tokenizer.decode(token_ids, skip_special_tokens=True),
            finish_reason=completion.finish_reason,
        )

    async def _unload(self, adapter: AdapterRef) -> None:
        await self._answer(self._llm.remove_lora(self._lora_requests.pop(adapter.name).lora_int_id))

    async def _answer(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for vLLM's engine process to answer. vLLM 0.32 itself waits for ever if that process dies meanwhile."""
        task = asyncio.create_task(call)
        with self._cause_of_death():
            try:
                while not (await asyncio.wait({task}, timeout=ALIVE_CHECK_S))[0]:
                    if self._llm.errored:
                        raise self._llm.dead_error
                return task.result()
            finally:
                task.cancel()

    @contextlib.contextmanager
    def _cause_of_death(self) -> Iterator[None]:
        """Say what vLLM's engine process died of; vLLM itself only says that it did."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            yield
        except EngineDeadError as error:
            ended = self._llm.engine_core.resources.engine_manager.finished_procs()
            causes = [describe_exit(code) for code in ended.values()] or ["it gave up"]
            raise ActorDied(f"in its engine process: {causes[0]}") from error


def _use_kernel_sizes() -> None:
    """Point vLLM to block sizes for the card of this process, unless the user has named a folder of tuned ones."""
    from vllm.platforms import current_platform

    if "VLLM_TUNED_CONFIG_FOLDER" not in os.environ:
        folder = os.environ["VLLM_TUNED_CONFIG_FOLDER"] = tempfile.mkdtemp(prefix="lora-kernels-")
        write_kernel_sizes(Path(folder), current_platform.get_device_name())


def set_environment(share: Share, kv_cache_gib: int) -> None:
    """Set what vLLM reads from the environment of its processes. kv_cache_gib: on the CPU."""
    if share.cores:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)
    else:
        # Ray sets this to the actor's cores, and vLLM 0.32 then keeps so many threads spinning between its steps.
        os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    # FlashInfer's sampler takes no seeds, and compiles with nvcc, which is on few machines.
    os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"


def lora_settings(lora: LoraConfig) -> dict[str, Any]:
    """vLLM's settings for adapters like this one."""
    return {
        "enable_lora": True,
        "max_loras": ADAPTER_SLOTS,
        "max_cpu_loras": ADAPTER_SLOTS,
        "max_lora_rank": padded_rank(lora.rank),
        # Without this list vLLM also wraps lm_head, whose empty adapter took 85 % of all time on the CPU.
        "lora_target_modules": list(lora.target_modules),
    }


def cpu_settings(context: int) -> dict[str, Any]:
    """vLLM's settings for an engine without a card. context: tokens of the longest sample."""
    return {
        # By its path: vLLM 0.32 replaces "uni" by a worker process of its own. Beside one the engine process takes 0.7
        # GiB and 10 s more to start, and while it waits it spins: on two cores a token then takes three times as much.
        "distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
        "block_size": CPU_BLOCK,
        "enforce_eager": True,
        # A seeded request whose prompt is computed in chunks crashes vLLM 0.32 on the CPU: it rewinds the request's
        # generator after each chunk, and a CPU generator has no offset.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context, CPU_BATCHED_TOKENS),
    }


def card_settings(share: Share, cache_blocks: int | None) -> dict[str, Any]:
    """vLLM's settings for its part of a card. It measures free memory only if the cache has no given size: what
    another process on the card takes or frees meanwhile would count as the engine's.

    The size is in blocks, since the bytes of one depend on how vLLM groups layers with and without a window.
    """
    if cache_blocks is None:
        return {"gpu_memory_utilization": share.memory}
    return {
        "num_gpu_blocks_override": cache_blocks,
        "kv_cache_memory_bytes": 1,  # any number keeps vLLM 0.32 from measuring, and then the blocks decide
        "gpu_memory_utilization": SMALL_SHARE,
    }
