"""What a run will do, before it does it: placement, memory and time, from configuration and the model's shape alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from actors.messages import LeftOut
from actors.models.files import shape_of
from actors.models.sizes import answers_alone, recomputes
from actors.runtime.placement import most_engines, most_ranks, place
from conf.checks import check_lengths
from conf.errors import BadInput
from conf.schema import Config, ShapeConfig
from conf.settings import changed
from launch.hardware.machine import Machine
from launch.plan.estimate import Estimate, estimate
from launch.plan.memory import Fit, available_memory, cache_tokens, memory_of
from launch.plan.time import (
    TOGETHER,
    UNMEASURED,
    Calibration,
    Costs,
    Workload,
    assumed_workload,
    costs_of,
    live_context,
)
from rewards.problems.loading import EVAL_SEED, TRAIN_SEED, check_number, held_out, read_pairs

CACHE_MARGIN = 1.2
"""Of the KV cache for each token that samples have in the mean: with less, vLLM would often take away a sample's part,
and with it the time to compute it again."""

FILE = "file:"


Change = dict[str, object]
"""Settings by key."""


@dataclass(frozen=True)
class Problems:
    """Numbers of problems to train on and held out, and of rows left out so far."""

    train: int
    heldout: int
    left_out: int


@dataclass(frozen=True)
class Plan(Fit):
    """A run on a machine. What follows from the fields is computed when it is asked for.

    config: with the plan's decisions in the place of `auto`
    asked: the configuration before them
    calibration: corrects the predicted times
    problems: as counted; None where they are not
    """

    asked: Config
    calibration: Calibration
    problems: Problems | None = None

    @cached_property
    def sequences(self) -> int:
        """Samples of full length that the KV caches of all engines hold at once."""
        rollout = self.config.rollout
        length = rollout.max_prompt_tokens + rollout.max_response_tokens
        return self.cache_tokens // length * len(self.placement.rollouts)

    @property
    def at_once(self) -> int:
        """Samples that an engine decodes at once: vLLM starts them while its KV cache has room for what they are long
        now, and computes one anew where it then runs full.
        """
        rollout, alone = self.config.rollout, answers_alone(self.config, self.placement.device)
        asked = rollout.samples_per_problem if alone else rollout.max_concurrent_samples
        held = int(self.cache_tokens / (CACHE_MARGIN * live_context(self.workload)))
        least = self.sequences // len(self.placement.rollouts)
        return max(1, min(asked, rollout.max_concurrent_samples, max(held, least)))

    @cached_property
    def workload(self) -> Workload:
        return self.calibration.workload or assumed_workload(self.config)

    @cached_property
    def costs(self) -> Costs | None:
        """None for a card whose rates are not known."""
        costs = costs_of(self.config, self.shape, self.machine, self.placement, self.workload)
        return self.calibration.correct(costs) if costs else None

    @property
    def together(self) -> float:
        """What engine and learner do at the same time on one processor, over what one of them alone would do."""
        if self.placement.device != "cuda":
            return 1.0
        return self.calibration.together or TOGETHER[self.config.run.mps]

    @cached_property
    def estimate(self) -> Estimate | None:
        """None without costs, or where not one sample fits."""
        if self.costs is None or not self.sequences:
            return None
        return estimate(self.config, self.costs, self.workload, self.placement, self.at_once, self.together)


def make_plan(config: Config, machine: Machine, calibration: Calibration = UNMEASURED) -> Plan:
    """Plan a run, with the learner ranks that fit and make an update shortest unless `learner.ranks` says how many.

    Raises BadInput if the model's shape is neither declared nor to be had, its context too short for a sample, or the
    machine too small for the ranks.
    """
    shape = shape_of(config.model)
    check_lengths(config, shape.context)
    plans = [plan_for(config, machine, shape, ranks, calibration) for ranks in possible_ranks(config, machine)]
    return min(plans, key=lambda plan: (not plan.fits, plan.estimate.update_s if plan.estimate else math.inf))


def possible_ranks(config: Config, machine: Machine) -> Sequence[int]:
    """Return the numbers of ranks to choose from, fewest first: as configured, or all that leave the engines a card.

    Raises BadInput if more ranks or engines are configured than the machine has cards or cores for.
    """
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
    """Plan a run with so many learner ranks."""
    placement = place(machine.cores, machine.gpus, ranks, config.rollout.actors, machine.nodes)
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    available = available_memory(machine, placement)
    card = available.get("learner GPU") or 0.0
    again = "on" if recomputes(config, shape, card) else "off"
    decided = changed(config, {"learner.gradient_checkpointing": again})
    memory = tuple(entry for entry in memory_of(decided, shape, placement, card, machine.nodes) if entry.bytes)
    tokens = cache_tokens(decided, shape, placement, memory, available)
    return Plan(decided, machine, placement, shape, memory, available, tokens, config, calibration)


def with_problems(plan: Plan) -> Plan:
    """Return the plan with the problems of its file counted, and no more held out than there are."""
    if (problems := count_problems(plan.asked)) is None:
        return plan
    fewer: Change = {"eval.problems": problems.heldout}
    return replace(plan, config=changed(plan.config, fewer), asked=changed(plan.asked, fewer), problems=problems)


def count_problems(config: Config) -> Problems | None:
    """Count the problems of a run whose data is in a file; None for another source, which takes time or a network.

    Raises BadInput where a run would: for a file that is not there or cannot be read, or with too few problems in it.
    """
    data = config.data
    if not data.source.startswith(FILE):
        return None
    left_out: list[LeftOut] = []
    train = len(read_pairs("data.source", data.source, data, TRAIN_SEED, left_out))
    heldout = config.eval.problems
    if not data.eval_source:
        heldout = held_out(train, config)
        train -= heldout
    elif heldout and data.eval_source.startswith(FILE):
        heldout = min(heldout, len(read_pairs("data.eval_source", data.eval_source, data, EVAL_SEED, left_out)))
    train = min(train, data.size or train)
    check_number(train, heldout, config, left_out)
    return Problems(train, heldout, len(left_out))
