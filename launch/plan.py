"""What a run will do, before it does it: placement, memory and time, from configuration and the model's shape alone.

Memory comes from the formulas named beside each entry. Time is a roofline estimate: bytes and floating-point operations
over the machine's rates, at the efficiencies below; a run measures the truth.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from actors.placement import Placement, most_engines, most_ranks, place
from conf.checks import check_lengths
from conf.errors import BadInput
from conf.models import shape_of
from conf.schema import Config, ShapeConfig
from conf.sizes import (
    ADAPTER_SLOTS,
    DTYPE_BYTES,
    OPTIMIZER_BYTES,
    activation_bytes,
    kv_bytes_per_token,
    lora_parameters,
    matmul_parameters,
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

PROCESS = GIB
"""Host memory of a process that has imported torch and vLLM or DeepSpeed, without weights."""

HOST_PROCESSES = 4
"""Engine, its server, learner, and together the coordinator, the reward workers and Ray."""

LOGIT_BYTES = 12
"""Per logit of a chunk: the logits, their exponentials and one temporary, all fp32."""

LARGEST_CPU_MODEL = 500_000_000
"""Parameters of the largest model that runs on a CPU without being asked to twice."""

FILL = 0.5
"""How full of its limits an average sample is taken to be. At the limits a run takes twice as long."""

START_S = 60.0
"""Seconds before the first group: imports, weights, engine start."""


@dataclass(frozen=True)
class Efficiency:
    """Shares of the machine's rates that decoding and learning reach."""

    decode: float
    learn: float


EFFICIENCY = {"cpu": Efficiency(decode=0.12, learn=0.40), "cuda": Efficiency(decode=0.50, learn=0.30)}
"""CPU: measured on the embedded model (370 tokens/s and 0.4 TFLOP/s on a core with AMX). CUDA: usual figures for models
this small under LoRA, not measured."""

DECODE_STEP_S = 0.008
"""Least time of one decoding step on a card, whatever the model: launching kernels, scheduling, sampling."""

SWAP_S = 1.5
"""Publishing and loading an adapter version, measured at rank 256 on the embedded model with requests in flight."""


@dataclass(frozen=True)
class Memory:
    """One entry of the memory plan. place: `rollout GPU`, `learner GPU` or `host`. elastic: the least it can do with,
    while it takes whatever the place has left.
    """

    place: str
    what: str
    bytes: float
    formula: str
    elastic: bool = False


@dataclass(frozen=True)
class Estimate:
    """Seconds of one update's parts and of one evaluation; `updates` in the budget. together: generation and learning
    run at the same time. tokens: generated for one update.
    """

    tokens: float
    generate_s: float
    learn_s: float
    together: bool
    evaluate_s: float
    budget_s: float

    @property
    def update_s(self) -> float:
        return SWAP_S + (max(self.generate_s, self.learn_s) if self.together else self.generate_s + self.learn_s)

    @property
    def updates(self) -> int:
        """That fit beside start-up and the evaluations before and after."""
        return max(0, int((self.budget_s - START_S - 2 * self.evaluate_s) / self.update_s))

    @property
    def bottleneck(self) -> str:
        return "generation" if self.generate_s > self.learn_s else "learning"


@dataclass(frozen=True)
class Plan:
    """memory: what each place needs; room: bytes it has, None if unknown. sequences: samples of full length that the
    KV caches hold at once. estimate: None for a card whose rates are not known.
    """

    config: Config
    machine: Machine
    placement: Placement
    shape: ShapeConfig
    memory: tuple[Memory, ...]
    room: dict[str, float | None]
    sequences: int
    estimate: Estimate | None

    def needed(self, place: str) -> float:
        return sum(entry.bytes for entry in self.memory if entry.place == place)

    @property
    def overfull(self) -> list[str]:
        """Places that need more memory than they have."""
        return [place for place, room in self.room.items() if room is not None and self.needed(place) > room]

    @property
    def fits(self) -> bool:
        return not self.overfull


def make_plan(config: Config, machine: Machine) -> Plan:
    """The plan of a run on a machine, with the learner ranks that make an update shortest unless `learner.ranks` says
    how many. Raises BadInput if the model's shape is neither declared nor to be had, its context too short for a
    sample, or the machine too small for the ranks.
    """
    shape = shape_of(config.model)
    check_lengths(config, shape.context)
    plans = [_plan(config, machine, shape, ranks) for ranks in _ranks(config, machine)]
    return min(plans, key=lambda plan: plan.estimate.update_s if plan.estimate else math.inf)


def _ranks(config: Config, machine: Machine) -> Iterable[int]:
    """Numbers of learner ranks to choose from, fewest first."""
    engines, most_actors = config.rollout.actors, most_engines(machine.cores, machine.gpus)
    asked, most = config.learner.ranks, most_ranks(machine.cores, machine.gpus, engines)
    if engines is not None and engines > most_actors:
        raise _too_many(machine, f"rollout.actors={engines}", "the learner", most_actors)
    if asked is None:
        return range(1, most + 1) if machine.gpus else (1,)
    if asked > most:
        raise _too_many(machine, f"learner.ranks={asked}", "a rollout actor", most)
    return (asked,)


def _too_many(machine: Machine, what: str, other: str, most: int) -> BadInput:
    count = f"{machine.gpus} × {machine.name}" if machine.gpus else f"{len(machine.cores)} cores"
    least = f"each has a card, and {other} one too" if machine.gpus else "each has a core"
    return BadInput(f"{what}: too many for {count}, since {least}; use at most {most}, or leave it out")


def _plan(config: Config, machine: Machine, shape: ShapeConfig, ranks: int) -> Plan:
    placement = place(machine.cores, machine.gpus, ranks, config.rollout.actors, machine.nodes)
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    room = _room(machine, placement)
    memory = tuple(_memory(config, shape, placement, room.get("learner GPU") or 0.0))
    sequences = _sequences(config, shape, placement, memory, room)
    estimate = _estimate(config, shape, machine, placement, sequences)
    return Plan(config, machine, placement, shape, memory, room, sequences, estimate)


def refusal(plan: Plan) -> None:
    """Raise BadInput if the plan cannot or should not be carried out on this machine; `device=cpu` insists."""
    config, machine = plan.config, plan.machine
    if not machine.present:
        raise BadInput(f"device={config.device}: this machine has no {config.device}; add plan=true to plan for one")
    if config.device == "cpu":
        return
    billions = parameters(plan.shape) / 1e9
    if machine.gpus == 0 and parameters(plan.shape) > LARGEST_CPU_MODEL and plan.estimate and machine.flops:
        raise BadInput(
            f"model.path={config.model.path}: without a GPU this model of {billions:.1f} billion parameters needs"
            f" {plan.needed('host') / GIB:.0f} GiB and about {duration(plan.estimate.update_s)} an update"
            f" ({len(machine.cores)} cores at {machine.flops / 1e12:.2g} TFLOP/s each); rent a card (device=A40"
            " plan=true shows what one does), insist with device=cpu, or start with conf=quickstart"
        )
    if plan.overfull:
        place = plan.overfull[0]
        raise BadInput(
            f"model.path={config.model.path}: the {place} needs {plan.needed(place) / GIB:.1f} GiB and has"
            f" {(plan.room[place] or 0) / GIB:.1f} on {machine.name}; lower learner.tokens_per_microbatch with"
            " rollout.max_response_tokens, or lora.rank, or take a larger machine"
        )


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _memory(config: Config, shape: ShapeConfig, placement: Placement, card: float) -> Iterator[Memory]:
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
    if cuda:
        cache = group * kv_bytes_per_token(shape, config.model.dtype)
        yield Memory(engine_place, "engine: KV cache, at least", cache, "one group of full length", elastic=True)
        workspace = ENGINE_WORKSPACE + rollout.max_concurrent_samples * shape.vocabulary * LOGIT_BYTES
        yield Memory(engine_place, "engine: context, workspace", CUDA_CONTEXT + workspace, "1.5 GiB, sampled logits")
    else:
        yield Memory(engine_place, "engine: KV cache", rollout.kv_cache_gib * GIB, "rollout.kv_cache_gib")
    yield Memory(learner_place, "learner: base weights", here * base, f"as the engine's{each_rank}")
    adapter = trained * (2 * size + 4)
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
    processes = HOST_PROCESSES + 2 * (len(placement.rollouts) - 1) + ranks - 1
    yield Memory("host", "processes", processes * PROCESS, f"{processes} × 1 GiB")


def _room(machine: Machine, placement: Placement) -> dict[str, float | None]:
    if placement.device == "cpu":
        return {"host": machine.host_memory}
    return {
        "rollout GPU": machine.gpu_memory * placement.rollouts[0].memory,
        "learner GPU": machine.gpu_memory * placement.learners[0].memory,
        "host": machine.host_memory,
    }


def _sequences(
    config: Config, shape: ShapeConfig, placement: Placement, memory: tuple[Memory, ...], room: dict[str, float | None]
) -> int:
    """Samples of full length that the KV caches of all engines hold."""
    length = config.rollout.max_prompt_tokens + config.rollout.max_response_tokens
    if placement.device == "cpu":
        cache: float = config.rollout.kv_cache_gib * GIB
    else:
        fixed = sum(entry.bytes for entry in memory if entry.place == "rollout GPU" and not entry.elastic)
        cache = max(0.0, (room["rollout GPU"] or 0) - fixed)
    return int(cache / (length * kv_bytes_per_token(shape, config.model.dtype))) * len(placement.rollouts)


def _estimate(
    config: Config, shape: ShapeConfig, machine: Machine, placement: Placement, sequences: int
) -> Estimate | None:
    """A roofline: decoding is bound by bytes on a card and by operations on a CPU, learning by operations.

    Operations a token and step: forward 2 (N + L), twice if activations are computed again, backward 2 (N + L) for the
    activations and 2 L for the adapter, with N frozen and L trained weights; once 2 N for the base model if KL is in
    the loss. The learner computes the prompt of a group once. Prefill is left out.
    """
    if not (machine.bandwidth and machine.flops and sequences):
        return None
    rollout, learner = config.rollout, config.learner
    efficiency = EFFICIENCY[placement.device]
    size = DTYPE_BYTES[config.model.dtype]
    frozen = matmul_parameters(shape)
    trained = lora_parameters(shape, config.lora.rank, config.lora.target_modules)
    engines = len(placement.rollouts)
    response = FILL * rollout.max_response_tokens
    length = FILL * rollout.max_prompt_tokens + response

    samples = learner.problems_per_update * rollout.samples_per_problem
    in_flight = min(
        rollout.max_concurrent_samples, sequences // engines, samples * (1 + learner.max_staleness) // engines
    )
    if placement.device == "cuda":
        step_bytes = (frozen + trained) * size + in_flight * length * kv_bytes_per_token(shape, config.model.dtype)
        step_s = max(DECODE_STEP_S, step_bytes / (machine.bandwidth * efficiency.decode))
        tokens_per_s = engines * max(1, in_flight) / step_s
        learner_flops = machine.flops * len(placement.learners)
    else:
        engine_cores = len(placement.rollouts[0].cores)
        tokens_per_s = engine_cores * machine.flops * efficiency.decode / (2 * (frozen + trained))
        learner_flops = machine.flops * sum(len(share.cores) for share in placement.learners)
    learned = samples * response + learner.problems_per_update * FILL * rollout.max_prompt_tokens
    card = machine.gpu_memory * placement.learners[0].memory
    step = 4 * frozen + 6 * trained + (2 * (frozen + trained) if recomputes(config, shape, card) else 0)
    work = config.algorithm.steps_per_batch * step + (2 * frozen if config.algorithm.kl else 0)
    learn_s = learned * work / (learner_flops * efficiency.learn)
    answer = FILL * (config.eval.max_response_tokens or rollout.max_response_tokens)
    engine, learners = placement.rollouts[0], placement.learners
    shared = machine.gpus == 1 or any(set(share.cores) & set(engine.cores) for share in learners)
    return Estimate(
        tokens=samples * response,
        generate_s=samples * response / tokens_per_s,
        learn_s=learn_s,
        together=learner.max_staleness > 0 and not shared,
        evaluate_s=config.eval.problems * config.eval.n * answer / tokens_per_s,
        budget_s=config.budget.seconds,
    )
