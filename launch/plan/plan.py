"""What a run will do, before it does it: placement, memory and time, from configuration and the model's shape alone."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from actors.runtime.placement import Placement, most_engines, most_ranks, place
from conf.checks import check_lengths
from conf.devices import CARD_DTYPE
from conf.errors import BadInput
from conf.models import shape_of
from conf.schema import Config, ShapeConfig
from conf.sizes import kv_bytes_per_token, longest_sample, offloads, parameters, recomputes
from launch.plan.calibration import UNMEASURED, Calibration
from launch.plan.costs import Costs, Workload
from launch.plan.machine import GIB, Machine
from launch.plan.memory import Memory, cache_tokens, memory_of, room_in
from launch.plan.roofline import costs_of, workload_of

LARGEST_CPU_MODEL = 500_000_000
"""Parameters of the largest model that runs on a CPU without being asked to twice."""

NEWER = "take a card that can: an A40, an RTX 3090 or a newer one"


@dataclass(frozen=True)
class Estimate:
    """Seconds of one update's parts and of one evaluation. together: generation and learning run at the same
    time. tokens: generated for one update. learn_s: all that the learner does between two batches.
    """

    tokens: float
    generate_s: float
    learn_s: float
    together: bool
    evaluate_s: float

    @property
    def update_s(self) -> float:
        return max(self.generate_s, self.learn_s) if self.together else self.generate_s + self.learn_s


@dataclass(frozen=True)
class Fit:
    """What a configuration needs of a machine. memory: what each place needs; room: bytes it has, None if unknown.
    cache_tokens: that the KV cache of one engine holds.
    """

    config: Config
    machine: Machine
    placement: Placement
    shape: ShapeConfig
    memory: tuple[Memory, ...]
    room: dict[str, float | None]
    cache_tokens: int

    def needed(self, place: str) -> float:
        return sum(entry.bytes for entry in self.memory if entry.place == place)

    @property
    def overfull(self) -> list[str]:
        """Places that need more memory than they have."""
        return [place for place, room in self.room.items() if room is not None and self.needed(place) > room]

    @property
    def computes(self) -> bool:
        """Whether a run is possible in the model's dtype, as far as is known."""
        dtype, rates = self.config.model.dtype, self.machine.rates
        if self.machine.gpus:
            return dtype == CARD_DTYPE and rates.get(dtype, math.inf) > 0
        return dtype in rates

    @property
    def starved(self) -> bool:
        """Whether the KV cache of an engine does not hold one sample, with which vLLM does not start."""
        return self.cache_tokens < longest_sample(self.config)

    @property
    def fits(self) -> bool:
        return self.computes and not self.overfull and not self.starved


@dataclass(frozen=True)
class Plan(Fit):
    """asked: as configured; config: with what the plan has decided (offload, gradient checkpointing) in the place of
    `auto`. sequences: samples of full length that the KV caches hold at once. costs, estimate: None for a card whose
    rates are not known. calibration: what corrects them.
    """

    asked: Config
    sequences: int
    workload: Workload
    costs: Costs | None
    estimate: Estimate | None
    calibration: Calibration

    @property
    def at_once(self) -> int:
        """Samples that an engine decodes at once."""
        return max(1, min(self.config.rollout.max_concurrent_samples, self.sequences // len(self.placement.rollouts)))


def make_plan(config: Config, machine: Machine, calibration: Calibration = UNMEASURED) -> Plan:
    """The plan of a run on a machine, with the learner ranks that fit and make an update shortest unless
    `learner.ranks` says how many. Raises BadInput if the model's shape is neither declared nor to be had, its context
    too short for a sample, or the machine too small for the ranks.
    """
    shape = shape_of(config.model)
    check_lengths(config, shape.context)
    plans = [plan_for(config, machine, shape, ranks, calibration) for ranks in _ranks(config, machine)]
    return min(plans, key=lambda plan: (not plan.fits, plan.estimate.update_s if plan.estimate else math.inf))


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


def plan_for(
    config: Config, machine: Machine, shape: ShapeConfig, ranks: int, calibration: Calibration = UNMEASURED
) -> Plan:
    """The plan with so many learner ranks."""
    placement = place(machine.cores, machine.gpus, ranks, config.rollout.actors, machine.nodes)
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    room = room_in(machine, placement)
    card = room.get("learner GPU") or 0.0
    asked, config = config, _decide(config, shape, card, ranks)
    memory = tuple(entry for entry in memory_of(config, shape, placement, card, machine.nodes) if entry.bytes)
    tokens = cache_tokens(config, shape, placement, memory, room)
    length = config.rollout.max_prompt_tokens + config.rollout.max_response_tokens
    sequences = tokens // length * len(placement.rollouts)
    workload = calibration.workload or workload_of(config)
    costs = costs_of(config, shape, machine, placement, workload)
    plan = Plan(
        asked=asked,
        config=config,
        machine=machine,
        placement=placement,
        shape=shape,
        memory=memory,
        room=room,
        cache_tokens=tokens,
        sequences=sequences,
        workload=workload,
        costs=calibration.correct(costs) if costs else None,
        estimate=None,
        calibration=calibration,
    )
    return replace(plan, estimate=_estimate(plan))


def _decide(config: Config, shape: ShapeConfig, card: float, ranks: int) -> Config:
    """The configuration with offload and checkpointing decided for a card of so many bytes."""
    config = copy.deepcopy(config)
    learner = config.learner
    learner.offload = "cpu" if offloads(config, shape, ranks * card) else "none"
    learner.gradient_checkpointing = "on" if recomputes(config, shape, card) else "off"
    return config


def refusal(plan: Plan) -> None:
    """Raise BadInput if the plan cannot or should not be carried out on this machine; `device=cpu` insists."""
    config, machine = plan.config, plan.machine
    if not machine.present:
        raise BadInput(f"device={config.device}: this machine has no {config.device}; add plan=true to plan for one")
    insists = config.device == "cpu"
    billions = parameters(plan.shape) / 1e9
    if machine.gpus == 0 and not insists and parameters(plan.shape) > LARGEST_CPU_MODEL and plan.estimate:
        rate = machine.rates[config.model.dtype]
        raise BadInput(
            f"model.path={config.model.path}: without a GPU this model of {billions:.1f} billion parameters needs"
            f" {plan.needed('host') / GIB:.0f} GiB and about {duration(plan.estimate.update_s)} an update"
            f" ({len(machine.cores)} cores at {rate / 1e12:.2g} TFLOP/s each); rent a card (device=A40"
            " plan=true shows what one does), insist with device=cpu, or start with conf=quickstart"
        )
    if plan.starved or not (plan.fits or insists):
        raise BadInput(f"model.path={config.model.path}: {misfit(plan)}; {advice(plan)}")


def misfit(plan: Fit) -> str:
    """Why it does not fit."""
    if not plan.computes:
        dtype = plan.config.model.dtype
        if plan.machine.gpus and dtype != CARD_DTYPE:
            return f"vLLM serves LoRA on a card in {CARD_DTYPE}, not in model.dtype={dtype}"
        return f"the {plan.machine.name} cannot compute in model.dtype={dtype}"
    if not plan.overfull:
        return (
            f"an engine's KV cache holds {plan.cache_tokens:,} tokens, and a sample may have"
            f" {longest_sample(plan.config):,}, prompt included"
        )
    place = plan.overfull[0]
    return (
        f"the {place} needs {plan.needed(place) / GIB:.1f} GiB and has {(plan.room[place] or 0) / GIB:.1f}"
        f" on {plan.machine.name}"
    )


def advice(plan: Plan) -> str:
    """What to do about a plan that does not fit."""
    if change := remedy(plan):
        return f"it fits with {' '.join(change)}"
    return "take a larger machine or a smaller model" if plan.computes else NEWER


def remedy(plan: Plan) -> tuple[str, ...]:
    """The smallest change of settings with which a plan fits, empty if none does: first what costs time alone, then
    what changes the result.
    """
    for change in _changes(plan):
        if _fits_with(plan, change):
            for key in tuple(change):
                less = {name: value for name, value in change.items() if name != key}
                change = less if _fits_with(plan, less) else change
            return tuple(f"{key}={value}" for key, value in change.items())
    return ()


def _fits_with(plan: Plan, change: dict[str, object]) -> bool:
    config = copy.deepcopy(plan.asked)
    for key, value in change.items():
        section, name = key.split(".")
        setattr(getattr(config, section), name, value)
    return plan_for(config, plan.machine, plan.shape, config.learner.ranks or len(plan.placement.learners)).fits


def _changes(plan: Plan) -> Iterator[dict[str, object]]:
    """Ever larger ones; each holds all that is harmless and may help."""
    rollout, learner, placement = plan.config.rollout, plan.config.learner, plan.placement
    shortest = rollout.max_prompt_tokens + rollout.max_response_tokens
    needed: dict[str, object] = {} if plan.computes else {"model.dtype": plan.machine.dtype}
    if plan.starved and placement.device == "cpu":
        token = kv_bytes_per_token(plan.shape, plan.config.model.dtype)
        needed["rollout.kv_cache_gib"] = math.ceil(longest_sample(plan.config) * token / GIB)
    if needed:
        yield needed
    harmless: list[dict[str, object]] = [
        {"learner.offload": "none" if plan.overfull == ["host"] and placement.device == "cuda" else "cpu"},
        {"learner.gradient_checkpointing": "on"},
        {"learner.tokens_per_microbatch": max(learner.tokens_per_microbatch // 2, shortest)},
        {"learner.tokens_per_microbatch": shortest},
        {"learner.logprob_chunk": min(256, learner.logprob_chunk)},
        {"rollout.max_concurrent_samples": min(32, rollout.max_concurrent_samples)},
    ]
    if placement.device == "cpu" and not plan.starved:
        harmless.append({"rollout.kv_cache_gib": 1})
    if len(placement.learners) > 1:
        harmless.append({"learner.ranks": 1})
    if len(placement.rollouts) > 1:
        harmless.append({"rollout.actors": 1})
    for change in harmless:
        yield needed | change
    for change in harmless:
        needed = needed | change
        yield needed
    rank = plan.config.lora.rank
    while (rank := rank // 2) >= 8:
        yield needed | {"lora.rank": rank}
    response = rollout.max_response_tokens
    while (response := response // 2) >= 256:
        shorter = {
            "rollout.max_response_tokens": response,
            "learner.tokens_per_microbatch": rollout.max_prompt_tokens + response,
        }
        yield needed | shorter
        yield needed | {"lora.rank": min(8, plan.config.lora.rank)} | shorter


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _estimate(plan: Plan) -> Estimate | None:
    """Mean durations; the waits of overlapped halves for each other are not in them, as they are in a simulation."""
    config, costs, workload = plan.config, plan.costs, plan.workload
    if costs is None or not plan.sequences:
        return None
    rollout, learner = config.rollout, config.learner
    engines, ranks = plan.placement.rollouts, plan.placement.learners
    problems, each = learner.problems_per_update, rollout.samples_per_problem
    drawn = problems / workload.varied if learner.refill else problems
    varied = problems if learner.refill or config.algorithm.regularised else problems * workload.varied
    ahead = 1 + learner.max_staleness
    active = min(len(engines), problems * ahead)
    running = min(plan.at_once, problems * each * ahead / active)
    token_s = costs.decode_s(running) / running / active
    probes = config.canary.problems * (workload.prompt + config.canary.tokens)
    learned = varied * (workload.prompt + each * workload.response)
    answer = min(workload.response, config.eval.max_response_tokens or math.inf)
    judging = max(1.0, min(plan.at_once, config.eval.problems / len(engines)))
    return Estimate(
        tokens=drawn * each * workload.response,
        generate_s=drawn * (each * workload.response * token_s + workload.fresh * costs.prefill_s / active),
        learn_s=learned * costs.learn_s / len(ranks) + probes * costs.score_s + costs.update_s + costs.swap_s,
        together=learner.max_staleness > 0 and not plan.placement.shared,
        evaluate_s=config.eval.problems * config.eval.n * answer * costs.decode_s(judging) / judging / len(engines),
    )
