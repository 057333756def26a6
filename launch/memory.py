"""What each process of a run needs of memory, from configuration and the model's shape alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from actors.placement import Placement
from conf.schema import Config, ShapeConfig
from conf.sizes import (
    ADAPTER_SLOTS,
    DTYPE_BYTES,
    OPTIMIZER_BYTES,
    activation_bytes,
    kv_bytes_per_token,
    lora_parameters,
    offloads,
    padded_rank,
    parameters,
    recomputes,
)
from launch.machine import GIB, Machine

CUDA_CONTEXT = GIB // 2
"""Bytes of a card that a process takes before its first tensor."""

BUCKET = 4 * 50_000_000
"""Bytes of gradients that ZeRO reduces at a time."""

ENGINE_WORKSPACE = GIB
"""vLLM's activations and CUDA graphs at the sizes of a micro-budget."""

ENGINE_PROCESSES = 1.4 * GIB
"""Host memory of an engine's server and scheduler, two processes that have imported torch, Ray and vLLM. Measured, as
the following, as peaks of resident memory on a machine without a card."""

WORKER_PROCESS = 1.0 * GIB
"""Of the process that computes for an engine, without weights and cache: the same imports, and what kernels keep."""

LEARNER_PROCESS = 0.57 * GIB
"""Of a learner rank: torch, transformers, PEFT, DeepSpeed and Ray."""

OTHER_PROCESSES = 2.0 * GIB
"""Of the driver, the coordinator, the reward actor and its workers, Ray and its dashboard. Their resident memory adds
up to 2.9 GiB, of which they share a third."""

LOGIT_BYTES = 12
"""Per logit of a chunk: the logits, their exponentials and one temporary, all fp32."""


@dataclass(frozen=True)
class Memory:
    """One entry of the memory plan. place: `rollout GPU`, `learner GPU` or `host`. what: process and part. elastic: the
    least it can do with, while it takes whatever the place has left.
    """

    place: str
    what: str
    bytes: float
    formula: str
    elastic: bool = False


def memory_of(config: Config, shape: ShapeConfig, placement: Placement, card: float) -> Iterator[Memory]:
    """card: bytes of a card a learner rank may use, 0 without one."""
    rollout, learner, lora = config.rollout, config.learner, config.lora
    size = DTYPE_BYTES[config.model.dtype]
    cuda = placement.device == "cuda"
    ranks = len(placement.learners)
    here, each_rank = (1, "") if cuda or ranks == 1 else (ranks, f", {ranks} ranks")
    engine_place, learner_place = ("rollout GPU", "learner GPU") if cuda else ("host", "host")
    base = parameters(shape) * size
    rank = padded_rank(lora.rank)
    slot = lora_parameters(shape, rank, lora.target_modules) * size
    trained = lora_parameters(shape, lora.rank, lora.target_modules)
    group = rollout.samples_per_problem * (rollout.max_prompt_tokens + rollout.max_response_tokens)
    chunk = learner.logprob_chunk * shape.vocabulary * LOGIT_BYTES

    yield Memory(engine_place, "engine: base weights", base, f"{parameters(shape) / 1e6:,.0f} million × {size} bytes")
    yield Memory(engine_place, "engine: adapter slots", ADAPTER_SLOTS * slot, f"{ADAPTER_SLOTS} at rank {rank}")
    copies = ADAPTER_SLOTS * trained * size
    yield Memory("host", "engine: adapters as loaded", copies, f"{ADAPTER_SLOTS} at rank {lora.rank}")
    if cuda:
        cache = group * kv_bytes_per_token(shape, config.model.dtype)
        yield Memory(engine_place, "engine: KV cache, at least", cache, "one group of full length", elastic=True)
        workspace = ENGINE_WORKSPACE + rollout.max_concurrent_samples * shape.vocabulary * LOGIT_BYTES
        yield Memory(engine_place, "engine: context, workspace", CUDA_CONTEXT + workspace, "1.5 GiB, sampled logits")
    else:
        yield Memory(engine_place, "engine: KV cache", rollout.kv_cache_gib * GIB, "rollout.kv_cache_gib")
    yield Memory(learner_place, "learner: base weights", here * base, f"as the engine's{each_rank}")
    adapter = trained * (2 * size + (4 if size < 4 else 0))
    yield Memory(learner_place, "learner: adapter, gradients", here * adapter, f"gradients summed in fp32{each_rank}")
    each, kept = activation_bytes(shape, lora.rank, size), f"{learner.tokens_per_microbatch} tokens"
    if recomputes(config, shape, card):
        each, kept = each // shape.layers + shape.layers * shape.hidden * size, f"{kept}, computed twice"
    activations = learner.tokens_per_microbatch * each
    yield Memory(learner_place, "learner: activations", here * activations, f"{kept}{each_rank}")
    logits = f"{learner.logprob_chunk} × {shape.vocabulary}{each_rank}"
    yield Memory(learner_place, "learner: chunk of logits", here * chunk, logits)
    if cuda:
        yield Memory(learner_place, "learner: context, bucket", CUDA_CONTEXT + BUCKET, "0.5 GiB, reduced gradients")
    place = "host" if offloads(config, shape, ranks * card) else learner_place
    parts = ranks if place == "learner GPU" else 1
    of = f"{OPTIMIZER_BYTES} bytes a trained weight" + (f", 1/{parts} a card" if parts > 1 else "")
    yield Memory(place, "learner: optimizer", trained * OPTIMIZER_BYTES / parts, of)
    engines = len(placement.rollouts)
    servers = engines * (ENGINE_PROCESSES + WORKER_PROCESS)
    yield Memory("host", "engine: processes", servers, f"{engines} × 2.4 GiB, measured")
    yield Memory("host", "learner: process", ranks * LEARNER_PROCESS, f"{ranks} × 0.57 GiB, measured")
    yield Memory("host", "other processes", OTHER_PROCESSES, "driver, coordinator, rewards, Ray: measured")


def room_in(machine: Machine, placement: Placement) -> dict[str, float | None]:
    """Bytes that each place has, None if unknown."""
    if placement.device == "cpu":
        return {"host": machine.host_memory}
    return {
        "rollout GPU": machine.gpu_memory * placement.rollouts[0].memory,
        "learner GPU": machine.gpu_memory * placement.learners[0].memory,
        "host": machine.host_memory,
    }


def cache_tokens(
    config: Config, shape: ShapeConfig, placement: Placement, memory: tuple[Memory, ...], room: dict[str, float | None]
) -> int:
    """Tokens that one engine's KV cache holds."""
    if placement.device == "cpu":
        cache: float = config.rollout.kv_cache_gib * GIB
    else:
        fixed = sum(entry.bytes for entry in memory if entry.place == "rollout GPU" and not entry.elastic)
        cache = max(0.0, (room["rollout GPU"] or 0) - fixed)
    return int(cache / kv_bytes_per_token(shape, config.model.dtype))
