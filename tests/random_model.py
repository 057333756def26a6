"""A recipe's model in its full size, without its weights."""

from typing import Any

from microbudget_rl.actors.models.files import BUNDLED
from microbudget_rl.actors.models.layers import SHARED
from microbudget_rl.conf.schema import ModelConfig

KINDS = {
    BUNDLED: "llama",
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2",
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen2",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
    "Qwen/Qwen2.5-Math-1.5B": "qwen2",
    "agentica-org/DeepScaleR-1.5B-Preview": "qwen2",
    "meta-llama/Llama-3.2-1B-Instruct": "llama",
    "Qwen/Qwen3-0.6B": "qwen3",
    "Qwen/Qwen3-1.7B": "qwen3",
    "HuggingFaceTB/SmolLM3-3B": "smollm3",
    "google/gemma-3-1b-it": "gemma3_text",
    "Qwen/Qwen3.5-0.8B": "qwen3_5_text",
    "google/gemma-4-E2B-it": "gemma4_text",
}
"""Transformers' name for the family of each model that has a recipe."""


def configuration(model: ModelConfig) -> Any:
    """Return the config.json that a recipe's shape describes, as transformers' object."""
    from transformers import AutoConfig

    shape = model.shape
    apart = ("head_norms", "fused_family", "layers", "sizes")
    kinds: dict[str, Any] = shape.sizes | {name: size for name, size in vars(shape).items() if name not in apart}
    if shape.layers:
        kinds["layer_types"] = [kind.removeprefix(SHARED) for kind, count in shape.layers.items() for _ in range(count)]
        kinds["num_kv_shared_layers"] = sum(count for kind, count in shape.layers.items() if kind.startswith(SHARED))
        kinds["use_double_wide_mlp"] = "use_double_wide_mlp" in kinds
    kinds |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 1)
    return AutoConfig.for_model(KINDS[model.path], **kinds)
