"""The engine's configuration by vLLM's CUDA build, from our settings: every recipe on one GPU."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from microbudget_rl.actors.models.files import shape_of
from microbudget_rl.actors.rollout.vllm_settings import SMALL_SHARE, engine_settings, set_environment
from microbudget_rl.actors.runtime.placement import Mapped, Share
from microbudget_rl.conf.catalogue import GPU_DTYPE, devices
from microbudget_rl.conf.load import compares_models, load, recipe_names
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import with_listed
from microbudget_rl.launch.plan.plan import Plan, make_plan
from microbudget_rl.launch.plan.refusal import remedy
from tests.cuda.absent import attempt, pretend
from tests.random_model import configuration

TOO_FEW = {"smollm3": 10, "gemma4_e2b": 16, "qwen2.5-7b": 16}
"""GiB of a GPU that a recipe does not fit, even with the settings that a refusal names. All others fit 8."""


def planned(recipe: str, card: str) -> Plan:
    """Return the plan of a recipe on a GPU, with the settings by which it fits there if there are any."""
    settings = [f"conf={recipe}", f"device={card}", f"model.dtype={GPU_DTYPE}"]
    plan = make_plan(load(settings), with_listed(card, tuple(range(8))))
    needed = () if plan.fits else remedy(plan)
    return make_plan(load([*settings, *needed]), plan.machine) if needed else plan


def starts(plan: Plan) -> Iterator[tuple[str, Share, int | None]]:
    """Yield each start of a vLLM in a run, with its share of the GPU and the blocks that a later start is given."""
    share, weights = plan.placement.rollouts[0], plan.placement.weights
    if weights:
        yield "holder of weights", weights, None
        share = Share(gpus=share.gpus, memory=share.memory, mapped=Mapped("/tmp/w", weights.memory))
    yield "start", share, None
    yield "restart", share, 5000


def model_folder(config: Config, parent: str) -> str:
    """Return a folder with the config.json of a recipe's model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    stated = configuration(changed(config, {"model.shape": shape_of(config.model)}).model)
    stated.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[stated.model_type]]
    folder = Path(parent, config.model.path.replace("/", "-"))
    stated.save_pretrained(folder)
    return str(folder)


def check(config: Config, share: Share, settings: dict[str, Any]) -> None:
    """Raise if vLLM refuses settings, or makes something else of them."""
    import torch
    from vllm import EngineArgs
    from vllm.config import set_current_vllm_config
    from vllm.v1.attention.backends.fa_utils import get_flash_attn_version
    from vllm.v1.attention.selector import get_attn_backend
    from vllm.v1.executor import Executor

    made = EngineArgs(**settings, skip_tokenizer_init=True).create_engine_config()
    scheduler, graphs, cache = made.scheduler_config, made.compilation_config, made.cache_config
    lora, model = made.lora_config, made.model_config
    with set_current_vllm_config(made):
        attention = get_attn_backend(model.get_head_size(), torch.bfloat16, "auto").get_name()
        flash = get_flash_attn_version()
    limits, hopper = config.rollout, torch.cuda.get_device_capability() == (9, 0)
    uneven = "global_head_dim" in config.model.shape.sizes  # heads of 512, which FlashAttention 2 and 3 do not take
    kernel = ("FLASH_ATTN 4" if hopper else "TRITON_ATTN 2") if uneven else f"FLASH_ATTN {3 if hopper else 2}"
    longest = max(limits.max_response_tokens, config.eval.max_response_tokens or 0)
    memory = SMALL_SHARE if "num_gpu_blocks_override" in settings else share.memory
    found = {
        "executor": (Executor.get_class(made).__name__, "UniProcExecutor"),
        "runner": (made.use_v2_model_runner, True),
        "attention": (f"{attention} {flash}", kernel),
        "graphs": (graphs.cudagraph_mode.name, "FULL_AND_PIECEWISE"),
        "sequences": (scheduler.max_num_seqs, limits.concurrent_samples + config.adapter_check.problems),
        "batched": (scheduler.max_num_batched_tokens, 2048),
        "seed": (model.seed, config.run.seed),
        "asynchronous": (scheduler.async_scheduling, True),
        "prefixes": (scheduler.enable_chunked_prefill and cache.enable_prefix_caching, True),
        "context": (model.max_model_len, limits.max_prompt_tokens + longest),
        "rank": (lora.max_lora_rank, config.lora.rank),
        "slots": (lora.max_loras, 2),  # the present adapter and one older, in every recipe
        "modules": (sorted(lora.target_modules), sorted(config.lora.target_modules)),
        "blocks": (cache.num_gpu_blocks_override, settings.get("num_gpu_blocks_override")),
        "dtypes": ((model.dtype, lora.lora_dtype), (torch.bfloat16, torch.bfloat16)),
        "logits": (model.head_dtype, torch.float32),
        "logprobs": (model.logprobs_mode, "processed_logprobs"),
        "format": (str(made.load_config.load_format), "ipc_cache" if share.mapped else "auto"),
        "fraction": (cache.gpu_memory_utilization, memory + (share.mapped.memory if share.mapped else 0.0)),
        "autotune": (made.kernel_config.enable_flashinfer_autotune, False),
        "largest graph": (graphs.max_cudagraph_capture_size >= limits.concurrent_samples, True),
    }
    if wrong := [f"{name} is {given}, not {wanted}" for name, (given, wanted) in found.items() if given != wanted]:
        raise ValueError("; ".join(wrong))


def fits(plan: Plan, expected: bool) -> None:
    if plan.fits != expected:
        raise ValueError(f"it fits: {plan.fits}, and not {expected}")


def ask(card: str, chosen: list[str] | None = None) -> None:
    pretend(card)
    set_environment(Share(gpus=1.0), 1)
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda inspect: inspect()  # another process would see no GPU
    recipes = (name for name in recipe_names() if name != "base" and not compares_models(name))
    with tempfile.TemporaryDirectory() as folder:
        for recipe in chosen or recipes:
            plan = planned(recipe, card)
            enough = devices()[card].memory_gib > TOO_FEW.get(recipe, 0)
            attempt("recipes that fit", f"{card} {recipe}", partial(fits, plan, enough))
            model = model_folder(plan.config, folder) if plan.fits else ""
            for start, share, blocks in starts(plan) if plan.fits else ():
                settings = engine_settings(plan.config, model, share, blocks)
                checked = partial(check, plan.config, share, settings)
                attempt("engine's configuration", f"{card} {recipe}, {start}", checked)
