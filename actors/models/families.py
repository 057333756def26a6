"""What a model's config.json says against learning from it: the families whose mathematics the learner has not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field

from conf.documents import mapping, read_json
from conf.errors import BadInput

ATTENTION_KINDS = {"full_attention", "sliding_attention", "attention"}
"""Values of config.json's `layer_types` for layers of attention over all earlier tokens, or the last of them."""

STATE_KEYS = re.compile(
    r"(mamba|ssm|conv|lru|attn_layer|linear_(conv|key|value|num))_|state_size$|(layers_)?block_types?$|hybrid_"
)
"""Of models in which some layers carry a state from token to token."""

EXPERTS = {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"}

NOT_DROPPED = {"attention_dropout", "attn_pdrop", "classifier_dropout"}
"""Dropouts that do not act: the learner's own attention has none, and there is no classifier."""

Size = Annotated[int, Field(ge=1, le=2**24)]
"""Of a dimension; larger ones are no model's."""

Stated = mapping(
    "Stated",
    {
        **dict.fromkeys(
            ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "max_position_embeddings"),
            NotRequired[Size],
        ),
        **dict.fromkeys(
            ("num_key_value_heads", "head_dim", "original_max_position_embeddings"), NotRequired[Size | None]
        ),
        **dict.fromkeys(("rope_parameters", "rope_scaling"), NotRequired[dict[str, Any] | None]),
        "num_hidden_layers": NotRequired[Annotated[int, Field(ge=1, le=1000)]],
        "model_type": NotRequired[str | None],
        "tie_word_embeddings": NotRequired[bool],
    },
)
"""config.json, as far as it is read here."""


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the content of a folder's config.json. Raises BadInput for one that is damaged."""
    return read_json(Path(folder) / "config.json", Stated, "name a model folder in Hugging Face format")


def rope_settings(stated: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the RoPE settings of a config.json, of old and new format: one for all layers, or one for each kind."""
    found = stated.get("rope_parameters") or stated.get("rope_scaling") or {}
    nested = [value for value in found.values() if isinstance(value, dict)]
    return nested or [found]


def rope_kind(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def common_context(stated: dict[str, Any]) -> int | None:
    """Return the tokens up to which engine and learner compute the same, None if that has no end.

    Of two sets of RoPE frequencies, only the first is used. In Cohere 2 vLLM's sliding window is one token wider than
    transformers', which longer samples would tell apart.
    """
    lengths = [
        rope.get("original_max_position_embeddings") or stated.get("original_max_position_embeddings")
        for rope in rope_settings(stated)
        if rope_kind(rope) in ("longrope", "su")
    ]
    if stated.get("model_type") == "cohere2":
        lengths.append(stated.get("sliding_window", 4096))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=None)


def check_family(folder: str | Path) -> None:
    """Raise BadInput if config.json names something that the learner would compute wrongly."""
    for objection in _objections(read_config(folder)):
        raise BadInput(f"{Path(folder) / 'config.json'}: {objection}")


def _objections(stated: dict[str, Any]) -> Iterator[str]:
    """Yield what speaks against a model: thing and value, reason, remedy."""
    for key in ("text_config", "vision_config", "audio_config"):
        if key in stated:
            yield f"there is a {key}, which makes it a model of more than text; choose the family's text model"
    if stated.get("quantization_config"):
        yield "there is a quantization_config, and the learner computes with plain weights; choose unquantized weights"
    if cap := stated.get("attn_logit_softcapping"):
        yield f"attn_logit_softcapping is {cap}, and the learner's attention has no soft cap; choose a family without"
    if mixer := _mixer(stated):
        yield f"{mixer}, and only full and sliding attention keep packed samples apart; choose another model"
    for key in sorted(EXPERTS & stated.keys()):
        if isinstance(stated[key], int) and stated[key] > 1:
            reason = "and neither learner nor engine attaches an adapter to experts"
            yield f"{key} is {stated[key]}, {reason}; choose a dense model"
    for kind in map(rope_kind, rope_settings(stated)):
        if "dynamic" in kind:
            yield (
                f"rope_type is {kind}, and with it a long sample would change the short ones beside it; choose another"
                " model, or set rope_type to default within the original context"
            )
    for key, value in sorted(stated.items()):
        dropout = ("dropout" in key or key.endswith("pdrop")) and key not in NOT_DROPPED
        if dropout and isinstance(value, float | int) and value > 0:
            yield f"{key} is {value}, and what is learned would not be what is served; set it to 0 in a copy"


def _mixer(stated: dict[str, Any]) -> str:
    """Name what mixes tokens other than by attention, empty if nothing does."""
    kinds = stated.get("layer_types")
    if isinstance(kinds, list):
        return next((f"layer_types has {kind}" for kind in sorted(set(map(str, kinds)) - ATTENTION_KINDS)), "")
    return next((f"{key} is {stated[key]}" for key in sorted(stated) if STATE_KEYS.match(key) and stated[key]), "")
