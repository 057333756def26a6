"""Settings and environment of vLLM 0.32 for the project's engines."""

import os
from typing import Any

from microbudget_rl.actors.models.families import RECURRENT, read_config, text_config
from microbudget_rl.actors.models.sizes import adapter_slots, longest_sample, padded_rank
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.conf.schema import Config, LoraConfig

CPU_BLOCK = 32
"""Tokens in a KV-cache block on the CPU: the smallest its kernels like. Only whole blocks are shared between requests,
and vLLM's default of 128 is longer than a short prompt, which would then be computed once per sample."""

CPU_BATCHED_TOKENS = 2048
"""Tokens of one engine step on the CPU: beyond that a longer batch is no faster, and running requests would stall."""

SMALL_SHARE = 0.01
"""Fraction of a GPU's memory that vLLM checks to be free. It is small, because vLLM checks this even where the size of
its KV cache is given and nothing depends on it."""


def engine_settings(config: Config, model_path: str, share: Share, cache_blocks: int | None) -> dict[str, Any]:
    """Return the arguments of a run's engine. cache_blocks: see `gpu_settings`."""
    context = longest_sample(config)
    return {
        "model": model_path,
        "dtype": config.model.dtype,
        "seed": config.run.seed,
        "max_model_len": context,
        # The adapter check's requests would otherwise wait for running samples to end.
        "max_num_seqs": config.rollout.concurrent_samples + config.adapter_check.problems,
        **lora_settings(config.lora, adapter_slots(config)),
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "enforce_eager": config.rollout.enforce_eager,
        # With it, the samples of an engine step depend on how soon the previous step is done.
        "async_scheduling": False if config.run.deterministic else None,
        **(cpu_settings(context) if share.cores else gpu_settings(share, cache_blocks)),
        **head_settings(config, share),
        **family_settings(model_path, share),
    }


def family_settings(model_path: str, share: Share) -> dict[str, Any]:
    """Return the arguments for a model's family: of a wrapper only the part for text is loaded.

    vLLM 0.32 shares prompts of recurrent models only if it computes them in chunks, which `cpu_settings` forbids.
    """
    whole = read_config(model_path)
    part = text_config(whole)
    alone = {} if part is whole else {"language_model_only": True}
    recurrent = share.cores and part.get("model_type") in RECURRENT
    return alone | ({"enable_prefix_caching": False} if recurrent else {})


def head_settings(config: Config, share: Share) -> dict[str, Any]:
    """Return the argument for logits in float32, as the learner has them on a GPU. On the CPU both round them.

    vLLM's batch-invariant mode, which a deterministic run uses, does not replace the product that gives them.
    """
    return {} if share.cores or config.run.deterministic else {"hf_overrides": {"head_dtype": "float32"}}


def lora_settings(lora: LoraConfig, slots: int) -> dict[str, Any]:
    return {
        "enable_lora": True,
        "max_loras": slots,
        "max_cpu_loras": slots,
        "max_lora_rank": padded_rank(lora.rank),
        # Without this list vLLM also wraps lm_head, whose empty adapter took 85 % of all time on the CPU.
        "lora_target_modules": list(lora.target_modules),
    }


def cpu_settings(context: int) -> dict[str, Any]:
    """Return the arguments of an engine without a GPU. context: tokens of the longest sample."""
    return {
        # By its path: vLLM 0.32 replaces "uni" by a worker process of its own, which takes 0.7 GiB and 10 s more to
        # start, and spins while it waits: on two cores a token then takes three times as long.
        "distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
        "block_size": CPU_BLOCK,
        "enforce_eager": True,
        # A seeded request whose prompt is computed in chunks crashes vLLM 0.32 on the CPU: it rewinds the request's
        # generator after each chunk, and a CPU generator has no offset.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context, CPU_BATCHED_TOKENS),
    }


def gpu_settings(share: Share, cache_blocks: int | None) -> dict[str, Any]:
    """Return the arguments of an engine on its share of a GPU.

    cache_blocks: size of the KV cache. The bytes of a block depend on how vLLM groups layers with and without a
        window. If None, vLLM measures free memory: memory that another process on the GPU takes or frees meanwhile
        would count as the engine's.
    """
    settings: dict[str, Any] = {
        "gpu_memory_utilization": share.memory,
        # Where nvcc and ninja are on a Hopper, it would try kernels at every start that no model here uses.
        "enable_flashinfer_autotune": False,
        # On Hopper and Blackwell it would take FlashInfer's, and ignore that they do not compile.
        "gdn_prefill_backend": "triton",
    }
    if cache_blocks is not None:
        settings |= {
            "num_gpu_blocks_override": cache_blocks,
            "kv_cache_memory_bytes": 1,  # any number keeps vLLM 0.32 from measuring, and then the blocks decide
            "gpu_memory_utilization": SMALL_SHARE,
        }
    if share.mapped:
        settings["load_format"] = "ipc_cache"
        settings["model_loader_extra_config"] = {"socket_dir": share.mapped.folder, "fallback": False}
        settings["gpu_memory_utilization"] += share.mapped.memory  # vLLM subtracts memory that others hold for it
    return settings


def set_environment(share: Share, kv_cache_gib: int) -> None:
    """Set vLLM's environment variables. kv_cache_gib: size of the KV cache on the CPU."""
    if share.cores:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)
    else:
        # Ray sets this to the actor's cores, and vLLM 0.32 then keeps so many threads spinning between its steps.
        os.environ.pop("OMP_NUM_THREADS", None)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    # FlashInfer's sampler takes no seeds, and compiles with nvcc, which is on few machines.
    os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
