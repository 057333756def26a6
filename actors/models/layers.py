"""The kinds of layers of a model, and what a layer of each kind holds.

A Llama has one kind. Other models also have layers that attend to a window, that use the keys and values of an earlier
layer (Gemma 4), or that keep a state per sequence: the gated delta rule (Qwen 3.5), Mamba 2 (Granite 4, Falcon-H1), and
a short convolution (LFM2).
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import ShapeConfig

ATTENTION = ("full_attention", "sliding_attention", "hybrid")
"""Kinds of layers with attention; `hybrid` has Mamba 2 next to it."""

SHARED = "shared_"
"""Start of the name of a kind whose layers use the keys and values of an earlier one."""

SIZES = (
    *("linear_", "mamba_", "conv_L_cache", "sliding_window", "global_head_dim", "shared_intermediate_size"),
    *("hidden_size_per_layer_input", "vocab_size_per_layer_input", "use_double_wide_mlp"),
)
"""Keys of config.json, or their beginnings, that are in `model.shape.sizes`."""


@dataclass(frozen=True)
class Layer:
    """A kind of layer; the weights outside of all layers are one, too.

    linear: inputs and outputs of its linear modules, by name
    rest: weights outside of these
    count: number of such layers
    queries, intermediate: width of the queries of all heads, and of the MLP
    keys: width of the keys that the layer stores, and of the values
    window: most tokens whose keys and values it stores
    state: numbers per sequence, of which those that vLLM keeps in float32 count twice
    kept: numbers per token for the backward pass, beyond a Llama's and the delta rule's, as measured with transformers'
        code; twice those of what keeps a state, which computes the prompt for each sample again
    values: width of the values of the gated delta rule
    """

    linear: dict[str, tuple[int, int]]
    rest: int
    count: int = 1
    queries: int = 0
    keys: int = 0
    intermediate: int = 0
    window: float = math.inf
    state: int = 0
    kept: int = 0
    values: int = 0


def kinds_of(stated: dict[str, Any]) -> dict[str, Any]:
    """Return `layers` and `sizes` of `model.shape` by config.json; nothing for a model like Llama."""
    count, mamba = stated["num_hidden_layers"], "mamba_d_state" in stated
    names = {"attention": "full_attention", "linear_attention": "mamba" if mamba else "linear_attention"}
    types = stated.get("layer_types") or ["hybrid" if "mamba_d_ssm" in stated else "full_attention"] * count
    unshared = count - (stated.get("num_kv_shared_layers") or 0)
    kinds = Counter(SHARED * (place >= unshared) + names.get(kind, kind) for place, kind in enumerate(types))
    if kinds == {"full_attention": count} and not mamba:
        return {}
    stated_sizes = {name: value for name, value in stated.items() if name.startswith(SIZES)}
    for layer_config in (stated.get("per_layer_config") or {}).values():  # transformers 5 writes global_head_dim there
        stated_sizes |= {"global_head_dim": layer_config.get("head_dim")}
    sizes = {name: int(value) for name, value in stated_sizes.items() if isinstance(value, int) and value}
    return {"layers": dict(kinds), "sizes": sizes}


def layers_of(shape: ShapeConfig) -> list[Layer]:
    """Return the kinds of layers of a model, and last what it has outside of them except for embeddings.

    Raises BadInput for an unknown kind, and if a kind needs a size that is not there.
    """
    per_layer = shape.sizes.get("hidden_size_per_layer_input", 0)
    linear = {"per_layer_model_projection": (shape.hidden_size, shape.num_hidden_layers * per_layer)}
    outside = Layer(linear if per_layer else {}, shape.hidden_size + per_layer)
    kinds = shape.layers or {"full_attention": shape.num_hidden_layers}
    try:
        return [*(_layer(shape, kind, count) for kind, count in kinds.items()), outside]
    except KeyError as error:
        raise BadInput(f"model.shape: lacks {error} for its layers; declare it, or restore config.json") from None


def _layer(shape: ShapeConfig, kind: str, count: int) -> Layer:
    sizes, hidden, base = shape.sizes, shape.hidden_size, kind.removeprefix(SHARED)
    unshared, attends, wide = base == kind, base in ATTENTION, sizes.get("use_double_wide_mlp", 0)
    mixer = Layer({}, 0) if attends and base not in MIXERS else MIXERS[base](shape)
    dim = attends * (sizes.get("global_head_dim", shape.head_dim) if base == "full_attention" else shape.head_dim)
    queries, keys = shape.num_attention_heads * dim, shape.num_key_value_heads * dim * unshared
    intermediate = sizes.get("shared_intermediate_size", shape.intermediate_size) * (1 if unshared else 1 + wide)
    more_norms = 2 * ("global_head_dim" in sizes) + ("hidden_size_per_layer_input" in sizes)
    linear = dict(mixer.linear)
    if attends:
        gated, output = "linear_num_key_heads" in sizes, "out_proj" if "conv_L_cache" in sizes else "o_proj"
        linear |= {"q_proj": (hidden, queries * (1 + gated)), output: (queries, hidden)}
    if keys:
        linear |= dict.fromkeys(("k_proj", "v_proj"), (hidden, keys))
    if "shared_intermediate_size" in sizes:
        linear |= {"input_linear": (hidden, 2 * intermediate), "output_linear": (intermediate, hidden)}
    else:
        names = ("w1", "w3", "w2") if "conv_L_cache" in sizes else ("gate_proj", "up_proj", "down_proj")
        linear |= dict.fromkeys(names[:2], (hidden, intermediate)) | {names[2]: (intermediate, hidden)}
    if per_layer := sizes.get("hidden_size_per_layer_input"):
        linear |= {"per_layer_input_gate": (hidden, per_layer), "per_layer_projection": (per_layer, hidden)}
    rest = mixer.rest + (2 + more_norms) * hidden + shape.head_norms * (1 + unshared) * dim
    window = sizes.get("sliding_window", math.inf) if base == "sliding_attention" else math.inf
    kept = mixer.kept + 3 * more_norms * hidden
    return Layer(linear, rest, count, queries, keys, intermediate, window, mixer.state, kept, mixer.values)


def _delta_rule(shape: ShapeConfig) -> Layer:
    sizes, hidden = shape.sizes, shape.hidden_size
    heads, dim, key_dim = sizes["linear_num_value_heads"], sizes["linear_value_head_dim"], sizes["linear_key_head_dim"]
    values, kernel = heads * dim, sizes["linear_conv_kernel_dim"]
    mixed = 2 * sizes["linear_num_key_heads"] * key_dim + values
    linear = {"in_proj_qkv": (hidden, mixed), "in_proj_z": (hidden, values), "out_proj": (values, hidden)}
    linear |= dict.fromkeys(("in_proj_b", "in_proj_a"), (hidden, heads))
    state = (kernel - 1) * mixed + 2 * values * key_dim
    return Layer(linear, kernel * mixed + 2 * heads + dim, state=state, values=values)


def _mamba(shape: ShapeConfig) -> Layer:
    sizes, hidden = shape.sizes, shape.hidden_size
    heads, kernel, inner = sizes["mamba_n_heads"], sizes["mamba_d_conv"], sizes["mamba_n_heads"] * sizes["mamba_d_head"]
    mixed = inner + 2 * sizes["mamba_n_groups"] * sizes["mamba_d_state"]
    linear = {"in_proj": (hidden, inner + mixed + heads), "out_proj": (inner, hidden)}
    norm = inner * ("shared_intermediate_size" in sizes or "mamba_rms_norm" in sizes)
    state = (kernel - 1) * mixed + inner * sizes["mamba_d_state"]
    return Layer(linear, (kernel + 1) * mixed + 3 * heads + norm, state=state, kept=2 * 58 * inner)


def _convolution(shape: ShapeConfig) -> Layer:
    hidden, kernel = shape.hidden_size, shape.sizes["conv_L_cache"]
    linear = {"in_proj": (hidden, 3 * hidden), "out_proj": (hidden, hidden)}
    return Layer(linear, kernel * hidden, state=(kernel - 1) * hidden, kept=2 * 6 * hidden)


MIXERS = {"linear_attention": _delta_rule, "mamba": _mamba, "hybrid": _mamba, "conv": _convolution}
"""What keeps a state per sequence, by kind of layer."""
