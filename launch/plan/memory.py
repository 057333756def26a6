"""Memory of each process of a run, computed from configuration and model shape, and whether it fits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from microbudget_rl.actors.models.sizes import (
    DTYPE_BYTES,
    OPTIMIZER_BYTES,
    activation_bytes,
    adapter_slots,
    cache_bytes,
    checkpoint_bytes,
    gradient_bytes,
    kept_on,
    longest_sample,
    lora_parameters,
    padded_rank,
    parameters,
)
from microbudget_rl.actors.runtime.placement import CUDA_CONTEXT, Placement, Share
from microbudget_rl.actors.runtime.ray_session import OBJECT_STORE_BYTES
from microbudget_rl.conf.catalogue import GPU_DTYPE
from microbudget_rl.conf.schema import Config, ShapeConfig
from microbudget_rl.launch.hardware.machine import GIB, Machine

BUCKET = 4 * 50_000_000
"""Bytes of gradients that ZeRO reduces at a time."""

NCCL_BUFFERS = 32 * 2 * 4 * 2**20
"""Bytes of GPU memory of a rank's channels to others, 32 at most, each with two buffers of 4 MiB: NCCL's defaults
(docs.nvidia.com, NCCL_MAX_NCHANNELS and NCCL_BUFFSIZE)."""

ENGINE_WORKSPACE = GIB
"""Bytes of vLLM's activations and CUDA graphs for the models and batches of a micro-budget."""

CUDA_LIBRARIES = 2.0 * GIB
"""Host memory of CUDA's context and libraries in a rollout actor or a learner process. A usual figure, not measured."""

ENGINE_PROCESSES = {"cpu": 1.0 * GIB, "cuda": 0.8 * GIB + CUDA_LIBRARIES}
"""Host memory of a rollout actor without weights and cache; 0.7 GiB of it are torch, Ray and vLLM. Measured, like the
following, as peaks of resident memory on a machine without a GPU."""

LEARNER_PROCESS = {"cpu": 0.57 * GIB, "cuda": 0.57 * GIB + CUDA_LIBRARIES}
"""Host memory of a learner process: torch, transformers, PEFT, DeepSpeed and Ray."""

OTHER_PROCESSES = 2.0 * GIB
"""Host memory of the driver, the coordinator, the reward actor and its workers, Ray and its dashboard. Their resident
memory adds up to 2.9 GiB, of which they share a third."""

PINNED = 2
"""Size of pinned memory over that of its contents, at most: torch rounds every tensor up to a power of two."""

LOADED = "engine: adapters as loaded"
"""Name of a part of an engine's memory that an evaluation, which serves one adapter, hardly needs."""

LOGIT_BYTES = 12
"""Bytes per logit of a chunk: the logit, its exponential and one temporary, all fp32."""


@dataclass(frozen=True)
class Memory:
    """One entry of the memory plan.

    place: `rollout GPU`, `learner GPU`, `weights GPU` or `host`
    what: process and part
    elastic: `bytes` is the minimum; the part takes all the memory that the others leave
    """

    place: str
    what: str
    bytes: float
    elastic: bool = False


def memory_of(fit: "Fit") -> Iterator[Memory]:
    """Yield the needs of one GPU of each kind, and of all processes on the first of a cluster's nodes, or here."""
    config, shape, (engines, ranks) = fit.config, fit.shape, _here(fit)
    yield from engine_memory(fit, engines)
    yield from _learner_memory(fit, ranks)
    size = DTYPE_BYTES[config.model.dtype]
    if config.model.shares_weights:  # a process holds them for engine and learner
        yield Memory("weights GPU", "base weights, shared", parameters(shape) * size)
        yield Memory("weights GPU", "holder: context", CUDA_CONTEXT)
        yield Memory("host", "holder: process", ENGINE_PROCESSES["cuda"])
    yield Memory("host", "other processes", OTHER_PROCESSES)
    store = OBJECT_STORE_BYTES
    if len(fit.machine.nodes) > 1:
        store += adapter_slots(config) * lora_parameters(shape, config.lora.rank, config.lora.target_modules) * size
    yield Memory("host", "object store", store)


def _here(fit: "Fit") -> tuple[int, int]:
    """Count the engines and learner processes of the first node; processes are packed onto the first nodes' GPUs."""
    placement, nodes = fit.placement, fit.machine.nodes
    engines, ranks = len(placement.rollouts), len(placement.learners)
    if not nodes:
        return engines, ranks
    home, beside = nodes[0], placement.shared_gpus
    if placement.device == "cpu":
        here = [
            [share.node in ("", home.id) for share in shares] for shares in (placement.rollouts, placement.learners)
        ]
        return sum(here[0]), sum(here[1])
    learning = min(ranks, home.gpus)
    return min(beside, learning) + min(engines - beside, home.gpus - learning), learning


def engine_memory(fit: "Fit", engines: int) -> Iterator[Memory]:
    """Yield the needs of one engine on its GPU, and of `engines` engines on the host."""
    config, shape, placement = fit.config, fit.shape, fit.placement
    rollout, lora, size = config.rollout, config.lora, DTYPE_BYTES[config.model.dtype]
    cuda = placement.device == "cuda"
    place, count = ("rollout GPU", 1) if cuda else ("host", engines)
    padded, loaded = (
        adapter_slots(config) * size * lora_parameters(shape, rank, lora.target_modules)
        for rank in (padded_rank(lora.rank), lora.rank)
    )
    weights = 0 if config.model.shares_weights and placement.learners else count * parameters(shape) * size
    yield Memory(place, "engine: base weights", weights)
    yield Memory(place, "engine: adapter slots", count * padded)
    yield Memory("host", LOADED, engines * loaded * (PINNED if cuda else 1))
    if cuda:
        group = rollout.samples_per_problem * cache_bytes(shape, config.model.dtype, rollout.longest)
        yield Memory(place, "engine: KV cache, at least", group, elastic=True)
        workspace = ENGINE_WORKSPACE + rollout.concurrent_samples * shape.vocab_size * LOGIT_BYTES
        yield Memory(place, "engine: context, workspace", CUDA_CONTEXT + workspace)
    else:
        yield Memory(place, "engine: KV cache", count * rollout.kv_cache_gib * GIB)
    yield Memory("host", "engine: processes", engines * ENGINE_PROCESSES[placement.device])


def _learner_memory(fit: "Fit", here: int) -> Iterator[Memory]:
    """Yield the needs of one learner process on its GPU, and of `here` processes on the host."""
    config, shape, placement = fit.config, fit.shape, fit.placement
    learner, lora, size = config.learner, config.lora, DTYPE_BYTES[config.model.dtype]
    ranks, cuda = len(placement.learners), placement.device == "cuda"
    place, count = ("learner GPU", 1) if cuda else ("host", here)
    trained = lora_parameters(shape, lora.rank, lora.target_modules)
    yield Memory(place, "learner: base weights", 0 if config.model.shares_weights else count * parameters(shape) * size)
    yield Memory(place, "learner: adapter, gradients", count * trained * (2 * size + (4 if size < 4 else 0)))
    token = activation_bytes(shape, lora.rank, size, kept_on(config, shape, cuda), learner.recomputes)
    yield Memory(place, "learner: activations", count * learner.microbatch * token)
    # Or the gradients of an MLP: the logits are gone before the backward pass reaches the layers.
    passing = learner.logprob_chunk * shape.vocab_size * LOGIT_BYTES, learner.microbatch * gradient_bytes(shape, size)
    yield Memory(place, "learner: chunk of logits", count * max(passing))
    if cuda:
        yield Memory(place, "learner: context, bucket", CUDA_CONTEXT + BUCKET)
        yield Memory(place, "learner: NCCL", NCCL_BUFFERS * (ranks > 1))
    weight = OPTIMIZER_BYTES
    if learner.offload == "cpu":
        place, count, weight = "host", here, OPTIMIZER_BYTES + size
    yield Memory(place, "learner: optimizer", trained * weight * count / ranks)
    if config.keeps_start:  # its adapter, and the policy's meanwhile
        yield Memory("host", "learner: reference", here * 2 * trained * size)
    yield Memory("host", "learner: checkpoint", trained * checkpoint_bytes(config))
    yield Memory("host", "learner: process", here * LEARNER_PROCESS[placement.device])


@dataclass(frozen=True)
class Fit:
    """Engines on a machine, without a learner. Their caches need to hold only one sample at a time."""

    config: Config
    machine: Machine
    placement: Placement
    shape: ShapeConfig

    @cached_property
    def memory(self) -> list[Memory]:
        """The needs of each place, part by part; `host_bytes` are apart, since `check_host` compares what is free."""
        return [entry for entry in engine_memory(self, 1) if entry.place != "host" and not entry.elastic]

    @property
    def host_bytes(self) -> float:
        """Host memory that the engines take."""
        entries = engine_memory(self, len(self.placement.rollouts))
        return sum(entry.bytes for entry in entries if entry.place == "host" and entry.what != LOADED)

    @cached_property
    def available(self) -> dict[str, float | None]:
        """Bytes that each place has, None if unknown."""
        kinds = {"rollout GPU": self.placement.rollouts, "learner GPU": self.placement.learners}
        if self.placement.weights:
            kinds["weights GPU"] = (self.placement.weights,)
        smallest = {place: min(share.memory for share in shares) for place, shares in kinds.items() if shares}
        gpus = {place: self.machine.gpu_memory * share + CUDA_CONTEXT for place, share in smallest.items()}
        return {**(gpus if self.machine.gpus else {}), "host": self.machine.host_memory}

    @cached_property
    def cache_tokens(self) -> int:
        """Tokens that the smallest of the engines' KV caches holds in samples of the greatest length."""
        longest = longest_sample(self.config)
        return int(min(self.held(share, longest) for share in self.placement.rollouts) * longest)

    def held(self, share: Share, tokens: float) -> float:
        """Return how many sequences of so many tokens an engine's KV cache holds, on a GPU in all memory left."""
        cache: float = self.config.rollout.kv_cache_gib * GIB
        if self.placement.device == "cuda":
            fixed = sum(entry.bytes for entry in self.memory if entry.place == "rollout GPU" and not entry.elastic)
            cache = max(0.0, share.memory * self.machine.gpu_memory + CUDA_CONTEXT - fixed)
        return cache / cache_bytes(self.shape, self.config.model.dtype, tokens)

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
            return dtype == GPU_DTYPE and rates.get(dtype, math.inf) > 0
        return dtype in rates

    @property
    def cache_too_small(self) -> bool:
        """Whether an engine's KV cache cannot hold one sample; vLLM then does not start."""
        return self.cache_tokens < longest_sample(self.config)

    @property
    def fits(self) -> bool:
        return self.computes and not self.overfull and not self.cache_too_small


def misfit(fit: Fit) -> str:
    """Say why a configuration does not fit."""
    dtype, machine = fit.config.model.dtype, fit.machine
    if not fit.computes:
        if machine.gpus and dtype != GPU_DTYPE:
            return f"vLLM serves LoRA on a GPU in {GPU_DTYPE}, not in model.dtype={dtype}"
        return f"the {machine.name} cannot compute in model.dtype={dtype}"
    if not fit.overfull:
        return (
            f"an engine's KV cache holds {fit.cache_tokens:,} tokens, and a sample may have"
            f" {longest_sample(fit.config):,}, prompt included"
        )
    place = fit.overfull[0]
    has = fit.available[place] or 0
    said = f"the {place} needs {fit.needed(place) / GIB:.1f} GiB and has {has / GIB:.1f} on {machine.name}"
    in_use = round((1 - machine.free(fit.placement.gpus)) * machine.gpu_memory / GIB, 1)
    hidden = " of a GPU, which CUDA_VISIBLE_DEVICES can hide" if machine.gpus > 1 else ""
    return f"{said}; nvidia-smi shows what else holds {in_use} GiB{hidden}" if in_use and place != "host" else said
