"""What a run will do, before it does it: placement, memory and time, from configuration and the model's shape alone."""

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property

from actors.models.files import shape_of
from actors.models.sizes import answers_alone, recomputes
from actors.runtime.placement import place
from conf.checks import check_lengths
from conf.schema import Config, ShapeConfig
from launch.hardware.machine import Machine
from launch.plan.estimate import Estimate, estimate
from launch.plan.fit import Fit
from launch.plan.learner_ranks import possible_ranks
from launch.plan.memory import available_memory, cache_tokens, memory_of
from launch.plan.problems import Problems, count_problems
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

CACHE_MARGIN = 1.2
"""Of the KV cache for each token that samples have in the mean: with less, vLLM would often take away a sample's part,
and with it the time to compute it again."""


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


def with_problems(plan: Plan) -> Plan:
    """Return the plan with the problems of its file counted, and no more held out than there are."""
    if (problems := count_problems(plan.asked)) is None:
        return plan
    config, asked = copy.deepcopy(plan.config), copy.deepcopy(plan.asked)
    config.eval.problems = asked.eval.problems = problems.heldout
    return replace(plan, config=config, asked=asked, problems=problems)


def plan_for(
    config: Config, machine: Machine, shape: ShapeConfig, ranks: int, calibration: Calibration = UNMEASURED
) -> Plan:
    """Plan a run with so many learner ranks."""
    placement = place(machine.cores, machine.gpus, ranks, config.rollout.actors, machine.nodes)
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    available = available_memory(machine, placement)
    card = available.get("learner GPU") or 0.0
    decided = copy.deepcopy(config)
    decided.learner.gradient_checkpointing = "on" if recomputes(config, shape, card) else "off"
    memory = tuple(entry for entry in memory_of(decided, shape, placement, card, machine.nodes) if entry.bytes)
    tokens = cache_tokens(decided, shape, placement, memory, available)
    return Plan(decided, machine, placement, shape, memory, available, tokens, config, calibration)
