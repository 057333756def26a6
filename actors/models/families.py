"""Refuses models by their config.json alone, and knows how long a context engine and learner compute alike."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.parsing import read_json

ATTENTION_KINDS = {"full_attention", "sliding_attention", "attention"}
"""Values of config.json's `layer_types` for layers of attention over all earlier tokens, or the last of them."""

RECURRENT = {"falcon_h1", "granitemoehybrid", "lfm2", "qwen3_5_text"}
"""Values of `model_type` whose layers may mix tokens by a convolution or a state, and for which that was compared."""

UNEVEN = {*RECURRENT, "gemma4_text"}
"""Values of `model_type` whose layers have different modules."""

WRAPPERS = {"gemma4", "qwen3_5"}
"""Values of `model_type` that also take images or sound, of which the part that takes text is trained."""

TAKES_MORE = "the model takes more than text; choose the family's text model"
MORE_THAN_TEXT = dict.fromkeys(("text_config", "vision_config", "audio_config"), TAKES_MORE)
WITH_EXPERTS = "neither learner nor engine attaches an adapter to experts; choose a dense model"

FUSED = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Values of `model_type` whose fused kernels were compared with the plain ones; liger-kernel has more."""

REFUSED = {
    "quantization_config": "the learner computes with plain weights; choose unquantized weights",
    "attn_logit_softcapping": "the learner's attention has no soft cap; choose a family without",
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), WITH_EXPERTS),
}
"""Keys of config.json with the reason and remedy where they have another value than null, 0 or 1."""

LFM2 = {"block_ff_dim": "intermediate_size", "tie_embedding": "tie_word_embeddings"}
"""Keys by its makers, who also list the layers of attention in `full_attn_idxs`."""

Size = Annotated[int, Field(ge=1, le=2**24)]
"""A model's dimension."""


@with_config(ConfigDict(extra="allow"))
class ModelConfigFile(TypedDict, total=False):
    """The keys of config.json that are read here."""

    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    vocab_size: Size
    max_position_embeddings: Size
    num_key_value_heads: Size | None
    head_dim: Size | None
    original_max_position_embeddings: Size | None
    rope_parameters: dict[str, Any] | None
    rope_scaling: dict[str, Any] | None
    num_hidden_layers: Annotated[int, Field(ge=1, le=1000)]
    layer_types: list[str] | None
    full_attn_idxs: list[int] | None
    block_ff_dim: Size
    model_type: str | None
    tie_word_embeddings: bool
    text_config: "ModelConfigFile | None"


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the content of a folder's config.json, of LFM2 under transformers' names. Raises BadInput if damaged."""
    stated = read_json(Path(folder) / "config.json", ModelConfigFile, "name a model folder in Hugging Face format")
    if stated.get("model_type") != "lfm2":
        return stated
    if (attend := stated.get("full_attn_idxs")) is not None:
        kinds = ("conv", "full_attention")
        stated = {"layer_types": [kinds[n in attend] for n in range(stated.get("num_hidden_layers", 0))]} | stated
    return stated | {LFM2[key]: value for key, value in stated.items() if key in LFM2}


def text_config(stated: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the part of a model that takes text: of a wrapper its `text_config`, else all."""
    part = stated.get("text_config")
    return part if isinstance(part, dict) else stated


def check_family(folder: str | Path) -> None:
    """Raise BadInput if config.json names something that the learner would compute wrongly."""
    whole, where = read_config(folder), Path(folder) / "config.json"
    stated = text_config(whole)
    for key, reason in (REFUSED | ({} if whole.get("model_type") in WRAPPERS else MORE_THAN_TEXT)).items():
        if (whole | stated).get(key) not in (None, 0, 1):
            raise BadInput(f"{where}: states {key}, and {reason}")
    if stated.get("attention_k_eq_v"):
        raise BadInput(f"{where}: states attention_k_eq_v, and vLLM adds an adapter to keys alone; choose another")
    mixing = {*(stated.get("layer_types") or ())} - ATTENTION_KINDS
    if mixing and stated.get("model_type") not in RECURRENT:
        raise BadInput(f"{where}: layer_types has {min(mixing)}, which mixes packed samples; choose another model")
    for kind in map(_rope_kind, _rope_settings(stated)):
        if "dynamic" in kind:
            remedy = "choose another model, or set it to default within the original context"
            raise BadInput(f"{where}: rope_type is {kind}, with which samples change each other; {remedy}")


def common_context(stated: dict[str, Any]) -> int | None:
    """Return the tokens up to which engine and learner compute the same, None without a limit.

    Of two sets of RoPE frequencies, only the first is used. Cohere 2's sliding window is one token wider in vLLM.
    """
    lengths = [
        rope.get("original_max_position_embeddings") or stated.get("original_max_position_embeddings")
        for rope in _rope_settings(stated)
        if _rope_kind(rope) in ("longrope", "su")
    ]
    if stated.get("model_type") == "cohere2":
        lengths.append(stated.get("sliding_window", 4096))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=None)


def _rope_settings(stated: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the RoPE settings of a config.json in old or new format: one for all layers, or one for each kind."""
    rope = stated.get("rope_parameters") or stated.get("rope_scaling") or {}
    return [value for value in rope.values() if isinstance(value, dict)] or [rope]


def _rope_kind(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")
