"""What each process of a run needs of memory, from configuration and the model's shape alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actors.runtime.placement import Node, Placement
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
from launch.plan.machine import GIB, Machine

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

PINNED = 2
"""Times its size that pinned memory takes at most: torch rounds every tensor up to a power of two."""

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


def memory_of(
    config: Config, shape: ShapeConfig, placement: Placement, card: float, nodes: Sequence[Node] = ()
) -> Iterator[Memory]:
    """Of cards, what each of a kind needs; of the host, what all processes do that are on the machine the run is
    started on. card: bytes of a card a learner rank may use, 0 without one. nodes: see `place` in
    `actors.runtime.placement`.
    """
    engines, ranks = _at_home(placement, nodes)
    yield from engine_memory(config, shape, placement, engines)
    yield from _learner_memory(config, shape, placement, card, ranks)
    yield Memory("host", "other processes", OTHER_PROCESSES, "driver, coordinator, rewards, Ray: measured")


def _at_home(placement: Placement, nodes: Sequence[Node]) -> tuple[int, int]:
    """Engines and learner ranks on the machine that the run is started on. Where cards are spread over a cluster,
    ranks are packed there first.
    """
    engines, ranks = len(placement.rollouts), len(placement.learners)
    if not nodes:
        return engines, ranks
    home = nodes[0]
    if placement.device == "cpu":
        return sum(share.node in ("", home.id) for share in placement.rollouts), ranks
    if placement.shared:
        return home.gpus, home.gpus
    ranks = min(ranks, home.gpus)
    return min(engines, home.gpus - ranks), ranks


def engine_memory(config: Config, shape: ShapeConfig, placement: Placement, engines: int) -> Iterator[Memory]:
    """Of one engine on its card, and of so many on the host."""
    rollout, lora = config.rollout, config.lora
    size = DTYPE_BYTES[config.model.dtype]
    cuda = placement.device == "cuda"
    place, here, each = ("rollout GPU", 1, "") if cuda else ("host", engines, _times(engines, "engines"))
    base = parameters(shape) * size
    slot = lora_parameters(shape, padded_rank(lora.rank), lora.target_modules) * size
    loaded = ADAPTER_SLOTS * lora_parameters(shape, lora.rank, lora.target_modules) * size
    slots = f"{ADAPTER_SLOTS} at rank"

    yield Memory(
        place, "engine: base weights", here * base, f"{parameters(shape) / 1e6:,.0f} million × {size} bytes{each}"
    )
    yield Memory(place, "engine: adapter slots", here * ADAPTER_SLOTS * slot, f"{slots} {padded_rank(lora.rank)}{each}")
    copies = f"{slots} {lora.rank}{', pinned' if cuda else ''}{_times(engines, 'engines')}"
    yield Memory("host", "engine: adapters as loaded", engines * loaded * (PINNED if cuda else 1), copies)
    if cuda:
        group = rollout.samples_per_problem * (rollout.max_prompt_tokens + rollout.max_response_tokens)
        cache = group * kv_bytes_per_token(shape, config.model.dtype)
        yield Memory(place, "engine: KV cache, at least", cache, "one group of full length", elastic=True)
        workspace = ENGINE_WORKSPACE + rollout.max_concurrent_samples * shape.vocabulary * LOGIT_BYTES
        yield Memory(place, "engine: context, workspace", CUDA_CONTEXT + workspace, "1.5 GiB, sampled logits")
    else:
        yield Memory(place, "engine: KV cache", here * rollout.kv_cache_gib * GIB, f"rollout.kv_cache_gib{each}")
    servers = engines * (ENGINE_PROCESSES + WORKER_PROCESS)
    yield Memory("host", "engine: processes", servers, f"{engines} × 2.4 GiB, measured")


def _learner_memory(
    config: Config, shape: ShapeConfig, placement: Placement, card: float, here: int
) -> Iterator[Memory]:
    """Of one rank on its card, and of so many on the host."""
    learner, lora = config.learner, config.lora
    size = DTYPE_BYTES[config.model.dtype]
    cuda = placement.device == "cuda"
    place, count, each = ("learner GPU", 1, "") if cuda else ("host", here, _times(here, "ranks"))
    ranks = len(placement.learners)
    trained = lora_parameters(shape, lora.rank, lora.target_modules)

    yield Memory(place, "learner: base weights", count * parameters(shape) * size, f"as the engine's{each}")
    adapter = trained * (2 * size + (4 if size < 4 else 0))
    yield Memory(place, "learner: adapter, gradients", count * adapter, f"gradients summed in fp32{each}")
    token, kept = activation_bytes(shape, lora.rank, size), f"{learner.tokens_per_microbatch} tokens"
    if recomputes(config, shape, card):
        token, kept = token // shape.layers + shape.layers * shape.hidden * size, f"{kept}, computed twice"
    activations = count * learner.tokens_per_microbatch * token
    yield Memory(place, "learner: activations", activations, f"{kept}{each}")
    chunk = learner.logprob_chunk * shape.vocabulary * LOGIT_BYTES
    logits = f"{learner.logprob_chunk} × {shape.vocabulary}{each}"
    yield Memory(place, "learner: chunk of logits", count * chunk, logits)
    if cuda:
        yield Memory(place, "learner: context, bucket", CUDA_CONTEXT + BUCKET, "0.5 GiB, reduced gradients")
    offloaded = offloads(config, shape, ranks * card)
    kept_in, parts, each_weight = (
        ("host", here, OPTIMIZER_BYTES + size) if offloaded else (place, count, OPTIMIZER_BYTES)
    )
    of = f"{each_weight} bytes a trained weight" + (f", {parts}/{ranks} of them" if parts < ranks else "")
    yield Memory(kept_in, "learner: optimizer", trained * each_weight * parts / ranks, of)
    yield Memory("host", "learner: process", here * LEARNER_PROCESS, f"{here} × 0.57 GiB, measured")


def _times(count: int, of: str) -> str:
    return f", {count} {of}" if count > 1 else ""


def room_in(machine: Machine, placement: Placement) -> dict[str, float | None]:
    """Bytes that each place has, None if unknown."""
    cards = {"rollout GPU": placement.rollouts, "learner GPU": placement.learners}
    return {
        **{place: machine.gpu_memory * shares[0].memory for place, shares in cards.items() if shares and machine.gpus},
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
