"""Generation with vLLM under versioned LoRA adapters. Knows vLLM and no Ray."""

import asyncio
import contextlib
import itertools
import os
from array import array
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from actors.messages import AdapterRef, Group, Problem, Sample, Sampling
from actors.models.files import stop_token_ids
from actors.models.sizes import adapter_slots, answers_alone
from actors.rollout.adapter_slots import AdapterSlots
from actors.rollout.engine_thread import EngineThread
from actors.rollout.vllm_settings import engine_settings, set_environment
from actors.runtime.placement import Share
from actors.runtime.process import end_without_gpu
from conf.errors import BadInput
from conf.schema import Config

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput
    from vllm.lora.request import LoRARequest


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
            try:
                return LLMEngine(made, Executor.get_class(made), log_stats=False, multiprocess_mode=False)
            except ValueError as error:
                if share.cores or "cache" not in str(error):
                    raise
                raise BadInput(
                    f"rollout.max_concurrent_samples={config.rollout.concurrent_samples}: no room for the KV cache"
                    f" ({str(error).partition(' Try ')[0]}); give half as many, or learner.gradient_checkpointing=on"
                ) from error

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

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        """Sample all responses to a problem; the request ends on the version it started on."""
        async with self._adapters.request(adapter):
            [output] = [output async for output in self._request(problem, adapter, sampling)]
        return Group(index, problem, adapter, tuple(map(self._sample, output.outputs)))

    async def stream(self, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> AsyncIterator[str]:
        """Yield the text of one response to a problem as it comes."""
        async with self._adapters.request(adapter):
            async for output in self._request(problem, adapter, sampling, in_parts=True):
                yield output.outputs[0].text

    async def close(self) -> None:
        await self._thread.close()

    async def _request(
        self, problem: Problem, adapter: AdapterRef | None, sampling: Sampling, in_parts: bool = False
    ) -> "AsyncIterator[RequestOutput]":
        """Yield vLLM's outputs: one with all token ids, or in parts, each with the next part of the text."""
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
            flat_logprobs=True,
            detokenize=in_parts,
            output_kind=RequestOutputKind.DELTA if in_parts else RequestOutputKind.FINAL_ONLY,
        )
        prompt, request_id = TokensPrompt(prompt_token_ids=list(problem.prompt_ids)), str(next(self._request_ids))
        if self._deterministic:
            prompt["cache_salt"] = request_id  # values from an earlier batch may differ in the last digits
        lora = self._lora_requests[adapter.name] if adapter else None
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
