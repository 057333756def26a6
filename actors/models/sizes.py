"""Sizes that follow from a model's shape: parameters, adapter, KV cache.

The shape is Llama's: grouped-query attention with four projections, a gated MLP with three. Biases and norms inside
attention, under 0.1 % of the parameters, do not count.
"""

from collections.abc import Iterable
from typing import NamedTuple

from microbudget_rl.conf.schema import Config, ShapeConfig
from microbudget_rl.conf.schema.model import PROJECTIONS, VLLM_RANKS

SYNTHETIC_ADAPTERS = 2
"""Adapters that the adapter check has an engine serve at once when it starts."""

MOST_SLOTS = 4
"""Most adapters an engine serves at once: older versions have hardly any requests left."""

DTYPE_BYTES = {"bfloat16": 2, "float32": 4}

OPTIMIZER_BYTES = 16
"""Bytes per trained weight, in fp32: master copy, two moments of Adam, and ZeRO's copy of the gradient. Host memory
also holds a copy of the weight in the model's dtype."""

QUEUED = {"cpu": 1, "cuda": 2}
"""Groups sent to an engine per group that fits into its batch. A group counts until its longest sample ends, when its
short ones have long left their places. Example: of 8 samples with lengths spread evenly up to 900 tokens, the longest
takes 800 and the mean 450, so that 9/16 of the places decode. About twice as many groups fill them. On a CPU every
sample makes a step longer."""


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


def checkpoint_bytes(config: Config) -> int:
    """Return the bytes of a checkpoint per trained weight: fp32 master copy, two moments of Adam, and the reference."""
    return 16 if config.keeps_start else 12


def padded_rank(rank: int) -> int:
    """Return the smallest rank vLLM serves that holds an adapter of this rank, at most 512."""
    return next(r for r in VLLM_RANKS if r >= rank)


def projection_sizes(shape: ShapeConfig) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each projection of one block, fused ones included."""
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    return {
        "q_proj": (shape.hidden_size, queries),
        "k_proj": (shape.hidden_size, keys),
        "v_proj": (shape.hidden_size, keys),
        "o_proj": (queries, shape.hidden_size),
        "gate_proj": (shape.hidden_size, shape.intermediate_size),
        "up_proj": (shape.hidden_size, shape.intermediate_size),
        "down_proj": (shape.intermediate_size, shape.hidden_size),
        "qkv_proj": (shape.hidden_size, queries + 2 * keys),
        "gate_up_proj": (shape.hidden_size, 2 * shape.intermediate_size),
    }


def parameters(shape: ShapeConfig) -> int:
    """Return the number of weights of the base model, with embedding, and with the head unless it is tied to it."""
    sizes = projection_sizes(shape)
    block = sum(inputs * outputs for inputs, outputs in map(sizes.__getitem__, PROJECTIONS)) + 2 * shape.hidden_size
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    return embeddings + shape.num_hidden_layers * block + shape.hidden_size


def matmul_parameters(shape: ShapeConfig) -> int:
    """Return the number of weights that a token is multiplied with: all but the embedding, which is a look-up."""
    return parameters(shape) - (0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size)


def lora_parameters(shape: ShapeConfig, rank: int, modules: Iterable[str]) -> int:
    """Return the number of weights of A and B on these projections of every block: rank · (inputs + outputs) each."""
    sizes = projection_sizes(shape)
    return shape.num_hidden_layers * rank * sum(sum(sizes[module]) for module in modules)


def kv_bytes_per_token(shape: ShapeConfig, dtype: str) -> int:
    """Return the bytes of keys and values of one token in every layer."""
    return 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * DTYPE_BYTES[dtype]


class Kept(NamedTuple):
    """Number of vectors per token that a block keeps for the backward pass, by size.

    hidden: inputs and norms, where float32 counts twice
    queries: queries, attention's output, and that output in another order if rows were padded
    intermediate: the MLP's
    heads: queries and keys before their norms, in models that have these
    """

    hidden: int
    queries: int
    intermediate: int
    heads: int


ON_CPU = Kept(6, 2, 4, 2)
"""Vectors on the CPU, within 1 % of what autograd saves for the bundled model."""

PLAIN = Kept(6, 3, 4, 2)
FUSED = Kept(4, 2, 3, 1)
"""Vectors on a GPU with plain and with fused kernels, within 10 % of a pass at full size over the paper's models."""


def kept_on(config: Config, shape: ShapeConfig, gpu: bool) -> Kept:
    """Return the vectors that a learner on a GPU or on the CPU keeps."""
    if not gpu:
        return ON_CPU
    return FUSED if config.learner.fused_kernels and shape.fused_family else PLAIN


def activation_bytes(shape: ShapeConfig, rank: int, size: int, kept: Kept = ON_CPU) -> int:
    """Return the bytes per token that the blocks keep for the backward pass, without gradient checkpointing.

    In addition to `kept` these are keys and values, and the adapter's seven inner vectors, most of which float32 does
    not need (learner.model.projection). size: bytes of a number.
    """
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    own = kept.hidden * shape.hidden_size + kept.queries * queries + kept.intermediate * shape.intermediate_size
    if shape.head_norms:
        own += kept.heads * (queries + keys)
    return shape.num_hidden_layers * size * (own + 2 * keys + 7 * rank)
