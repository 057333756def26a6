"""Generation: vLLM's AsyncLLM under versioned LoRA adapters.

`RolloutEngine` knows vLLM and no Ray; `RolloutActor` is the Ray shell around one; `RemoteEngine` is that actor as the
coordinator sees it.
"""

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle

from actors.messages import AdapterRef, Group, Problem, Sample, Sampling
from actors.placement import Share
from actors.slots import AdapterSlots
from conf.schema import Config
from conf.sizes import ADAPTER_SLOTS, padded_rank

if TYPE_CHECKING:
    from vllm import RequestOutput

CPU_BLOCK = 32
"""Tokens of a KV-cache block on the CPU: the smallest its kernels like. Only whole blocks are shared between requests,
and vLLM's default of 128 is longer than a short prompt, which would then be computed once per sample."""

CPU_BATCHED_TOKENS = 2048
"""Tokens of one engine step on the CPU: beyond that a longer batch is no faster, and running requests would stall."""


class RolloutEngine:
    """One vLLM engine on one share of the machine."""

    def __init__(self, config: Config, model_path: str, share: Share) -> None:
        if share.cores:
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, share.cores))
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.rollout.kv_cache_gib)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ["VLLM_NO_USAGE_STATS"] = "1"

        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        rollout = config.rollout
        context = rollout.max_prompt_tokens + longest_response(config)
        on_device: dict[str, Any] = (
            {
                "block_size": CPU_BLOCK,
                "enforce_eager": True,
                # A seeded request whose prompt is computed in chunks crashes vLLM 0.32 on the CPU: it rewinds the
                # request's generator after each chunk, and a CPU generator has no offset.
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(context, CPU_BATCHED_TOKENS),
            }
            if share.cores
            else {"gpu_memory_utilization": share.memory}
        )
        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=model_path,
                dtype=config.model.dtype,  # type: ignore[arg-type]  # conf/checks.py allows what vLLM takes
                seed=config.run.seed,
                max_model_len=context,
                # Room for the canary, whose probes would otherwise wait for running samples to end.
                max_num_seqs=rollout.max_concurrent_samples + config.canary.problems,
                enable_lora=True,
                max_loras=ADAPTER_SLOTS,
                max_cpu_loras=ADAPTER_SLOTS,
                max_lora_rank=padded_rank(config.lora.rank),  # type: ignore[arg-type]  # one of vLLM's ranks
                # Without this list vLLM also wraps lm_head, whose empty adapter took 85 % of all time on the CPU.
                lora_target_modules=list(config.lora.target_modules),
                logprobs_mode="processed_logprobs",
                disable_log_stats=True,
                **on_device,
            )
        )
        self._tokenizer = self._llm.get_tokenizer()
        self._slots = AdapterSlots(ADAPTER_SLOTS)
        self._slot_freed = asyncio.Condition()
        self._requests: dict[str, Any] = {}
        self._lora_ids = itertools.count(1)
        self._request_ids = itertools.count()

    async def load(self, adapter: AdapterRef) -> None:
        """Load an adapter under its own name, after waiting for a free slot."""
        from vllm.lora.request import LoRARequest

        async with self._slot_freed:
            await self._slot_freed.wait_for(lambda: self._slots.free > 0)
            self._slots.occupy(adapter.name)
        request = LoRARequest(adapter.name, next(self._lora_ids), adapter.path)
        if not await self._llm.add_lora(request):
            raise RuntimeError(f"vLLM did not load adapter {adapter.name} from {adapter.path}")
        self._requests[adapter.name] = request

    async def retire(self, adapter: AdapterRef) -> None:
        if self._slots.retire(adapter.name):
            await self._drop(adapter.name)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        """Draw all samples of a problem; the request ends on the version it started on."""
        if adapter is None:
            output = await self._run(problem, None, sampling)
        else:
            self._slots.begin(adapter.name)
            try:
                output = await self._run(problem, self._requests[adapter.name], sampling)
            finally:
                if self._slots.end(adapter.name):
                    await self._drop(adapter.name)
        return Group(index, problem, adapter, tuple(self._sample(completion) for completion in output.outputs))

    def close(self) -> None:
        self._llm.shutdown()

    async def _run(self, problem: Problem, lora: Any, sampling: Sampling) -> "RequestOutput":
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        outputs = self._llm.generate(
            TokensPrompt(prompt_token_ids=list(problem.prompt_ids)),
            parameters,
            request_id=str(next(self._request_ids)),
            lora_request=lora,
        )
        return [output async for output in outputs][-1]

    def _sample(self, completion: Any) -> Sample:
        token_ids = tuple(completion.token_ids)
        return Sample(
            token_ids=token_ids,
            logprobs=tuple(step[token].logprob for token, step in zip(token_ids, completion.logprobs, strict=True)),
            text=self._tokenizer.decode(token_ids, skip_special_tokens=True),
            finish_reason=completion.finish_reason,
        )

    async def _drop(self, name: str) -> None:
        await self._llm.remove_lora(self._requests.pop(name).lora_int_id)
        async with self._slot_freed:
            self._slots.vacate(name)
            self._slot_freed.notify_all()


def longest_response(config: Config) -> int:
    """Tokens of the longest response any part of a run asks for."""
    return max(config.rollout.max_response_tokens, config.eval.max_response_tokens or 0, config.canary.tokens)


class RolloutActor:
    """Ray shell of a RolloutEngine; asynchronous, so that many groups are in flight at once."""

    def __init__(self, config: Config, model_path: str, share: Share) -> None:
        share.bind()
        self._engine = RolloutEngine(config, model_path, share)

    async def ready(self) -> None:
        """Return once the engine is up."""

    async def load(self, adapter: AdapterRef) -> None:
        await self._engine.load(adapter)

    async def retire(self, adapter: AdapterRef) -> None:
        await self._engine.retire(adapter)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        return await self._engine.generate(index, problem, adapter, sampling)

    async def close(self) -> None:
        self._engine.close()


class RemoteEngine:
    """A RolloutActor as an `actors.protocols.Engine`. A cancelled request is cancelled in the engine too."""

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle

    async def ready(self) -> None:
        await self._handle.ready.remote()

    async def load(self, adapter: AdapterRef) -> None:
        await self._handle.load.remote(adapter)

    async def retire(self, adapter: AdapterRef) -> None:
        await self._handle.retire.remote(adapter)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        reference: ray.ObjectRef[Group] = self._handle.generate.remote(index, problem, adapter, sampling)
        try:
            return await reference
        except asyncio.CancelledError:
            ray.cancel(reference)
            raise

    async def close(self) -> None:
        await self._handle.close.remote()
