"""What each process of a run needs of memory, from configuration and the model's shape alone, and whether it fits."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from actors.models.sizes import (
    ADAPTER_SLOTS,
    CHECKPOINT_BYTES,
    DTYPE_BYTES,
    OPTIMIZER_BYTES,
    activation_bytes,
    kept_on,
    kv_bytes_per_token,
    longest_sample,
    lora_parameters,
    padded_rank,
    parameters,
    recomputes,
)
from actors.runtime.placement import Node, Placement
from actors.runtime.ray_session import OBJECT_STORE_BYTES
from conf.devices import CARD_DTYPE
from conf.schema import Config, ShapeConfig
from launch.hardware.machine import GIB, Machine

CUDA_CONTEXT = GIB // 2
"""Bytes of a card that a process takes before its first tensor."""

BUCKET = 4 * 50_000_000
"""Bytes of gradients that ZeRO reduces at a time."""

ENGINE_WORKSPACE = GIB
"""vLLM's activations and CUDA graphs at the sizes of a micro-budget."""

CUDA_LIBRARIES = 2.0 * GIB
"""Host memory that CUDA's context and libraries take in a process: a rollout actor and a learner rank. A usual figure,
not measured."""

ENGINE_PROCESSES = {"cpu": 1.0 * GIB, "cuda": 0.8 * GIB + CUDA_LIBRARIES}
"""Host memory of a rollout actor without weights and cache; 0.7 GiB of it are torch, Ray and vLLM imported. Measured,
like the following, as peaks of resident memory on a machine without a card."""

LEARNER_PROCESS = {"cpu": 0.57 * GIB, "cuda": 0.57 * GIB + CUDA_LIBRARIES}
"""Host memory of a learner rank: torch, transformers, PEFT, DeepSpeed and Ray."""

OTHER_PROCESSES = 2.0 * GIB
"""Host memory of the driver, the coordinator, the reward actor and its workers, Ray and its dashboard. Their resident
memory adds up to 2.9 GiB, of which they share a third."""

PINNED = 2
"""Pinned memory takes at most so many times its size: torch rounds every tensor up to a power of two."""

LOADED = "engine: adapters as loaded"
"""The part of an engine that an evaluation, which serves one adapter, hardly needs."""

LOGIT_BYTES = 12
"""Bytes per logit of a chunk: the logit, its exponential and one temporary, all fp32."""


@dataclass(frozen=True)
class Memory:
    """One entry of the memory plan.

    place: `rollout GPU`, `learner GPU` or `host`
    what: process and part
    formula: how the bytes come about, for people
    elastic: `bytes` is the least; the part takes whatever the place has left
    """

    place: str
    what: str
    bytes: float
    formula: str
    elastic: bool = False


def memory_of(
    config: Config, shape: ShapeConfig, placement: Placement, card: float, nodes: Sequence[Node] = ()
) -> Iterator[Memory]:
    """Yield what one card of each kind needs, and what all processes on the machine where the run starts need.

    card: bytes of a card that a learner rank may use, 0 without one. nodes: of a cluster, the run's own first.
    """
    engines, ranks = _on_first_node(placement, nodes)
    yield from engine_memory(config, shape, placement, engines)
    yield from _learner_memory(config, shape, placement, card, ranks)
    yield Memory("host", "other processes", OTHER_PROCESSES, "driver, coordinator, rewards, Ray: measured")
    yield Memory("host", "object store", OBJECT_STORE_BYTES, "Ray's, taken at its start")


def _on_first_node(placement: Placement, nodes: Sequence[Node]) -> tuple[int, int]:
    """Count the engines and learner ranks where the run starts; on a cluster ranks are packed onto its cards first."""
    engines, ranks = len(placement.rollouts), len(placement.learners)
    if not nodes:
        return engines, ranks
    first = nodes[0]
    if placement.device == "cpu":
        return sum(share.node in ("", first.id) for share in placement.rollouts), ranks
    if placement.shared:
        return first.gpus, first.gpus
    ranks = min(ranks, first.gpus)
    return min(engines, first.gpus - ranks), ranks


def engine_memory(config: Config, shape: ShapeConfig, placement: Placement, engines: int) -> Iterator[Memory]:
    """Yield what one engine needs on its card, and what so many need on the host."""
    rollout, lora, dtype = config.rollout, config.lora, config.model.dtype
    size, padded = DTYPE_BYTES[dtype], padded_rank(lora.rank)
    cuda, times = placement.device == "cuda", _times(engines, "engines")
    place, here, each = ("rollout GPU", 1, "") if cuda else ("host", engines, times)

    def slots(rank: int) -> int:
        return ADAPTER_SLOTS * lora_parameters(shape, rank, lora.target_modules) * size

    base = parameters(shape)
    yield Memory(place, "engine: base weights", here * base * size, f"{base / 1e6:,.0f} million × {size} bytes{each}")
    yield Memory(place, "engine: adapter slots", here * slots(padded), f"{ADAPTER_SLOTS} at rank {padded}{each}")
    loaded, pinned = engines * slots(lora.rank) * (PINNED if cuda else 1), ", pinned" if cuda else ""
    yield Memory("host", LOADED, loaded, f"{ADAPTER_SLOTS} at rank {lora.rank}{pinned}{times}")
    if cuda:
        group = rollout.samples_per_problem * (rollout.max_prompt_tokens + rollout.max_response_tokens)
        cache = group * kv_bytes_per_token(shape, dtype)
        yield Memory(place, "engine: KV cache, at least", cache, "one group of full length", elastic=True)
        workspace = ENGINE_WORKSPACE + rollout.max_concurrent_samples * shape.vocabulary * LOGIT_BYTES
        yield Memory(place, "engine: context, workspace", CUDA_CONTEXT + workspace, "1.5 GiB, sampled logits")
    else:
        yield Memory(place, "engine: KV cache", here * rollout.kv_cache_gib * GIB, f"rollout.kv_cache_gib{each}")
    process = ENGINE_PROCESSES[placement.device]
    yield Memory("host", "engine: processes", engines * process, _processes(engines, process, placement))


def _learner_memory(
    config: Config, shape: ShapeConfig, placement: Placement, card: float, here: int
) -> Iterator[Memory]:
    """Yield what one learner rank needs on its card, and what `here` of them need on the host."""
    learner, lora = config.learner, config.lora
    size, ranks, cuda = DTYPE_BYTES[config.model.dtype], len(placement.learners), placement.device == "cuda"
    place, count, each = ("learner GPU", 1, "") if cuda else ("host", here, _times(here, "ranks"))
    trained = lora_parameters(shape, lora.rank, lora.target_modules)

    yield Memory(place, "learner: base weights", count * parameters(shape) * size, f"as the engine's{each}")
    adapter = trained * (2 * size + (4 if size < 4 else 0))
    yield Memory(place, "learner: adapter, gradients", count * adapter, f"gradients summed in fp32{each}")
    token = activation_bytes(shape, lora.rank, size, kept_on(config, cuda))
    kept = f"{learner.tokens_per_microbatch} tokens"
    if recomputes(config, shape, card):
        token, kept = token // shape.layers + shape.layers * shape.hidden * size, f"{kept}, computed twice"
    yield Memory(place, "learner: activations", count * learner.tokens_per_microbatch * token, f"{kept}{each}")
    chunk = learner.logprob_chunk * shape.vocabulary * LOGIT_BYTES
    yield Memory(
        place, "learner: chunk of logits", count * chunk, f"{learner.logprob_chunk} × {shape.vocabulary}{each}"
    )
    if cuda:
        yield Memory(place, "learner: context, bucket", CUDA_CONTEXT + BUCKET, "0.5 GiB, reduced gradients")
    weight = OPTIMIZER_BYTES
    if learner.offload == "cpu":
        place, count, weight = "host", here, OPTIMIZER_BYTES + size
    part = f", {count}/{ranks} of them" if count < ranks else ""
    optimizer = trained * weight * count / ranks
    yield Memory(place, "learner: optimizer", optimizer, f"{weight} bytes a trained weight{part}")
    saved = trained * CHECKPOINT_BYTES
    yield Memory(
        "host", "learner: checkpoint", saved, f"{CHECKPOINT_BYTES} bytes a trained weight, while it is written"
    )
    process = LEARNER_PROCESS[placement.device]
    yield Memory("host", "learner: process", here * process, _processes(here, process, placement))


def _processes(count: int, each: float, placement: Placement) -> str:
    return f"{count} × {each / GIB:.3g} GiB" + ("" if placement.device == "cuda" else ", measured")


def _times(count: int, of: str) -> str:
    return f", {count} {of}" if count > 1 else ""


def available_memory(machine: Machine, placement: Placement) -> dict[str, float | None]:
    """Return the bytes that each place has, None if unknown."""
    cards = {"rollout GPU": placement.rollouts, "learner GPU": placement.learners} if machine.gpus else {}
    shares = {place: machine.gpu_memory * shares[0].memory for place, shares in cards.items() if shares}
    return {**shares, "host": machine.host_memory}


def cache_tokens(
    config: Config,
    shape: ShapeConfig,
    placement: Placement,
    memory: Iterable[Memory],
    available: Mapping[str, float | None],
) -> int:
    """Return the tokens that one engine's KV cache holds: on a card whatever the other parts leave."""
    cache: float = config.rollout.kv_cache_gib * GIB
    if placement.device == "cuda":
        fixed = sum(entry.bytes for entry in memory if entry.place == "rollout GPU" and not entry.elastic)
        cache = max(0.0, (available["rollout GPU"] or 0) - fixed)
    return int(cache / kv_bytes_per_token(shape, config.model.dtype))


@dataclass(frozen=True)
class Fit:
    """What a configuration needs of a machine.

    memory: the needs of each place, part by part
    available: bytes that each place has, None if unknown
    cache_tokens: tokens that the KV cache of one engine holds
    """

    config: Config
    machine: Machine
    placement: Placement
    shape: ShapeConfig
    memory: tuple[Memory, ...]
    available: dict[str, float | None]
    cache_tokens: int

    def needed(self, place: str) -> float:
        """Return the bytes that all parts in one place need."""
        return sum(entry.bytes for entry in self.memory if entry.place == place)

    @property
    def overfull(self) -> list[str]:
        """Places that need more memory than they have."""
        return [place for place, has in self.available.items() if has is not None and self.needed(place) > has]

    @property
    def computes(self) -> bool:
        """Whether the machine computes in the model's dtype, as far as is known."""
        dtype, rates = self.config.model.dtype, self.machine.rates
        if self.machine.gpus:
            return dtype == CARD_DTYPE and rates.get(dtype, math.inf) > 0
        return dtype in rates

    @property
    def cache_too_small(self) -> bool:
        """Whether an engine's KV cache cannot hold one sample, with which vLLM does not start."""
        return self.cache_tokens < longest_sample(self.config)

    @property
    def fits(self) -> bool:
        return self.computes and not self.overfull and not self.cache_too_small


def misfit(fit: Fit) -> str:
    """Say why a configuration does not fit."""
    dtype, machine = fit.config.model.dtype, fit.machine
    if not fit.computes:
        if machine.gpus and dtype != CARD_DTYPE:
            return f"vLLM serves LoRA on a card in {CARD_DTYPE}, not in model.dtype={dtype}"
        return f"the {machine.name} cannot compute in model.dtype={dtype}"
    if not fit.overfull:
        return (
            f"an engine's KV cache holds {fit.cache_tokens:,} tokens, and a sample may have"
            f" {longest_sample(fit.config):,}, prompt included"
        )
    place = fit.overfull[0]
    has = fit.available[place] or 0
    return f"the {place} needs {fit.needed(place) / GIB:.1f} GiB and has {has / GIB:.1f} on {machine.name}"
