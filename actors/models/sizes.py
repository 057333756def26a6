"""Sizes that follow from a model's shape. Biases, under 0.1 % of the parameters, do not count."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from microbudget_rl.actors.models.layers import layers_of
from microbudget_rl.conf.schema import Config, ShapeConfig
from microbudget_rl.conf.schema.model import VLLM_RANKS

SYNTHETIC_ADAPTERS = 2
"""Adapters that the adapter check has an engine serve at once when it starts."""

MOST_SLOTS = 4
"""Most adapters an engine serves at once: older versions have hardly any requests left."""

DTYPE_BYTES = {"bfloat16": 2, "float32": 4}

PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Linear layers that Phi-3 and vLLM fuse, with the parts of each in the order of their rows."""

STATES = 2
"""Copies of a layer's state that vLLM keeps per sequence: the present one, and that of the last full block, with which
other sequences may begin. A decoding step moves as much: it reads the state and writes it."""

OPTIMIZER_BYTES = 16
"""Bytes per trained weight, in fp32: master copy, two moments of Adam, and ZeRO's copy of the gradient. Host memory
also holds a copy of the weight in the model's dtype."""

QUEUED = {"cpu": 1, "cuda": 2}
"""Groups sent to an engine per group that fits into its batch. A group counts until its longest sample ends: if lengths
spread evenly, the mean is about half of that, and twice as many groups fill the places. On a CPU every sample makes a
step longer."""


def longest_sample(config: Config) -> int:
    """Return the tokens, prompt included, of the longest sample that any part of a run requests."""
    responses = (config.rollout.max_response_tokens, config.eval.max_response_tokens or 0, config.adapter_check.tokens)
    return config.rollout.max_prompt_tokens + max(responses)


def adapter_slots(config: Config) -> int:
    """Return how many adapters an engine serves: the current version, and older ones until their last request ends."""
    return min(max(config.learner.max_staleness + 1, SYNTHETIC_ADAPTERS), MOST_SLOTS)


def answers_alone(config: Config, device: str) -> bool:
    """Return whether an engine on this device, cpu or cuda, serves one request at a time."""
    return config.run.deterministic and device == "cpu"


def groups_at_once(config: Config, device: str) -> int:
    """Return the groups that an engine on this device, cpu or cuda, gets at once, if staleness admits as many.

    A GPU's decoding steps are hardly slower with more samples: it gets more groups than fit, and some wait in the
    engine.
    """
    full = config.rollout.concurrent_samples // config.rollout.samples_per_problem
    return max(QUEUED[device] * full, 1)


def shares_prompt(shape: ShapeConfig, device: str, tokens: float) -> bool:
    """Return whether an engine on this device computes a prompt of so many tokens once for all samples: if it has a
    whole block, which is 16 tokens on a GPU, or as many as take the memory of a state. On the CPU no states are shared.
    """
    state, keys = (max(getattr(layer, part) for layer in layers_of(shape)) for part in ("state", "keys"))
    return tokens >= 16 * math.ceil(state / keys / 32) if device == "cuda" else not state


def checkpoint_bytes(config: Config) -> int:
    """Return the bytes of a checkpoint per trained weight: fp32 master copy, two moments of Adam, and the reference."""
    return 16 if config.keeps_start else 12


def padded_rank(rank: int) -> int:
    """Return the smallest rank vLLM serves that holds an adapter of this rank, at most 512."""
    return next(r for r in VLLM_RANKS if r >= rank)


def parameters(shape: ShapeConfig) -> int:
    """Return the number of weights of the base model, with embeddings, and with the head unless it is tied to one."""
    rows, width = shape.sizes.get("vocab_size_per_layer_input", 0), shape.sizes.get("hidden_size_per_layer_input", 0)
    embedding = 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    return matmul_parameters(shape) + embedding + rows * width * shape.num_hidden_layers


def matmul_parameters(shape: ShapeConfig) -> int:
    """Return the number of weights that a token is multiplied with: all but the embeddings, which are look-ups."""
    layers = layers_of(shape)
    linear = sum(layer.count * math.prod(ends) for layer in layers for ends in layer.linear.values())
    return shape.vocab_size * shape.hidden_size + linear + sum(layer.count * layer.rest for layer in layers)


def lora_parameters(shape: ShapeConfig, rank: int, modules: Iterable[str]) -> int:
    """Return the number of weights of A and B on these modules in every layer: rank · (inputs + outputs) each."""
    names = tuple(modules)
    return rank * sum(layer.count * sum(_ends(layer.linear, name) for name in names) for layer in layers_of(shape))


def _ends(linear: dict[str, tuple[int, int]], module: str) -> int:
    """Return inputs + outputs of a module, which may be fused; 0 if a layer lacks it."""
    parts = [linear[name] for name in PARTS.get(module, (module,)) if name in linear]
    return parts[0][0] + sum(outputs for _, outputs in parts) if parts else 0


def cache_bytes(shape: ShapeConfig, dtype: str, tokens: float) -> float:
    """Return the bytes of one sequence in an engine's cache: keys and values of its tokens, and states."""
    return DTYPE_BYTES[dtype] * sum(
        layer.count * (STATES * layer.state + 2 * layer.keys * min(tokens, layer.window)) for layer in layers_of(shape)
    )


class Kept(NamedTuple):
    """Number of vectors per token that a block keeps for the backward pass, by size.

    hidden: inputs and norms, where float32 counts twice
    queries: queries, attention's output, and that output in another order if rows were padded
    intermediate: the MLP's
    heads: queries and keys before their norms, in models that have these
    values: of the gated delta rule: by plain torch, or by flash-linear-attention and the convolution before it
    """

    hidden: int
    queries: int
    intermediate: int
    heads: int
    values: int


ON_CPU = Kept(6, 2, 4, 2, 44)
"""Vectors on the CPU, within 1 % of what autograd saves for the bundled model."""

PLAIN = Kept(6, 3, 4, 2, 17)
FUSED = Kept(4, 2, 3, 1, 17)
"""Vectors on a GPU with plain and with fused kernels, within 10 % of a pass at full size over the paper's models."""


def kept_on(config: Config, shape: ShapeConfig, gpu: bool) -> Kept:
    """Return the vectors that a learner on a GPU or on the CPU keeps."""
    if not gpu:
        return ON_CPU
    return FUSED if config.learner.fused_kernels and shape.fused_family else PLAIN


def activation_bytes(shape: ShapeConfig, rank: int, size: int, kept: Kept = ON_CPU, recomputes: bool = False) -> int:
    """Return the bytes per token that the layers keep for the backward pass; with gradient checkpointing, their inputs
    and the largest layer.

    In addition to `kept` these are keys and values, a layer's own, and the adapter's inner vectors, most of which
    float32 does not need (learner.model.projection). size: bytes of a number.
    """
    total = largest = 0
    for layer in layers_of(shape)[:-1]:
        of_layer = (
            kept.hidden * shape.hidden_size + kept.queries * layer.queries + kept.intermediate * layer.intermediate
        )
        if shape.head_norms:
            of_layer += kept.heads * (layer.queries + layer.keys)
        of_layer += 2 * layer.keys + layer.kept + 2 * kept.values * layer.values + len(layer.linear) * rank
        total, largest = total + layer.count * of_layer, max(largest, of_layer)
    return size * (largest + shape.num_hidden_layers * shape.hidden_size if recomputes else total)


def gradient_bytes(shape: ShapeConfig, size: int) -> int:
    """Return the bytes per token of the gradients that the backward pass adds to what the layers keep.

    In a pass at full size they are largest where an MLP multiplies its two parts: the gradients of both, while the last
    layer still keeps all. size: bytes of a number.
    """
    return size * 2 * max(layer.intermediate for layer in layers_of(shape))
