"""Refuses a plan that does not fit, and names the smallest change of settings with which it fits."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from operator import or_

from microbudget_rl.actors.coordinator.budget import MOST_EVALUATION, evaluations_reserve
from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.models.sizes import cache_bytes, longest_sample, parameters
from microbudget_rl.actors.runtime.placement import place_engines
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config, ShapeConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import GIB, Machine
from microbudget_rl.launch.plan.memory import Fit, misfit
from microbudget_rl.launch.plan.plan import Change, Plan

LARGEST_CPU_MODEL = 500_000_000
"""Parameters of the largest model that runs on a CPU without `device=cpu`."""

NEWER_GPU = "take a GPU that can: an A40, an RTX 3090 or a newer one"

LEAST_START = 0.5
"""Fraction of the expected start that a budget must cover: an unmeasured machine may be twice as fast."""


def check_plan(plan: Plan) -> None:
    """Raise BadInput if the plan cannot run on this machine, or should not unless `device=cpu` insists."""
    config, machine = plan.config, plan.machine
    if not machine.present:
        raise BadInput(f"device={config.device}: this machine has no {machine.name}; add plan=true to plan for one")
    insists = config.device == "cpu"
    if machine.gpus == 0 and not insists and parameters(plan.shape) > LARGEST_CPU_MODEL and plan.estimate:
        raise BadInput(
            f"model.path={config.model.path}: without a GPU this model of {parameters(plan.shape) / 1e9:.1f} billion"
            f" parameters needs {plan.needed('host') / GIB:.0f} GiB and about {duration(plan.estimate.update_s)} per"
            f" update on {len(machine.cores)} cores; rent a GPU (device=A40 plan=true plans for one), insist with"
            " device=cpu, or start with conf=quickstart"
        )
    if plan.cache_too_small or not (plan.fits or insists):
        raise BadInput(f"model.path={config.model.path}: {misfit(plan)}; {advice(plan)}")


def check_budget(plan: Plan) -> None:
    """Raise BadInput if the budget covers not even the start, or cuts short the reserve for `eval.benchmarks`."""
    budget, estimate = plan.config.budget, plan.estimate
    if estimate is None:
        return
    least, what = LEAST_START * estimate.start_s, "start and evaluations take"
    needed = estimate.start_s + estimate.update_s + estimate.evaluations_s
    if estimate.benchmarks_s:
        reserve_s = evaluations_reserve(
            math.inf, plan.config.final_policies, estimate.evaluate_s, estimate.benchmarks_s
        )
        uncut = reserve_s / MOST_EVALUATION
        least, needed = max(least, uncut), max(needed, uncut)
        what = f"with {duration(estimate.benchmarks_s)} for eval.benchmarks each time, a run takes"
    if budget.seconds < least:
        given = f"hours={budget.hours:g}" if budget.minutes is None else f"minutes={budget.minutes:g}"
        more = f"give at least budget.minutes={math.ceil(needed / 60)}"
        raise BadInput(f"budget.{given}: {what} about {duration(needed)}; {more}")


def engines_alone(config: Config, shape: ShapeConfig, machine: Machine) -> Fit:
    """Place engines without a learner. Raises BadInput if a GPU cannot compute in the model's dtype, or has no room for
    a model and one sample.
    """
    placement = place_engines(machine.cores, machine.gpus, machine.room(1, machine.gpus))
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    fit = Fit(config, machine, placement, shape)
    if fit.fits:
        return fit
    remedy = "give a larger rollout.kv_cache_gib"
    if not fit.computes:
        remedy = NEWER_GPU if config.model.dtype == machine.dtype else f"it can with model.dtype={machine.dtype}"
    elif machine.gpus:
        remedy = "give a smaller rollout.max_concurrent_samples or eval.max_response_tokens, or take a larger GPU"
    raise BadInput(f"model.path={config.model.path}: {misfit(fit)}; {remedy}")


def advice(plan: Plan) -> str:
    """Say what to do about a plan that does not fit."""
    if change := remedy(plan):
        return f"it fits with {' '.join(change)}"
    return "take a larger machine or a smaller model" if plan.computes else NEWER_GPU


def remedy(plan: Plan) -> tuple[str, ...]:
    """Return settings with which the plan fits, none of them needless; they change the result only if they must."""
    for change in accumulate(_changes(plan), or_):
        if _fits_with(plan, change):
            for key in sorted(change, key=lambda key: key != "lora.rank"):  # drop needless changes
                less = {name: value for name, value in change.items() if name != key}
                change = less if _fits_with(plan, less) else change
            return tuple(f"{key}={value}" for key, value in change.items())
    return ()


def _fits_with(plan: Plan, change: Change) -> bool:
    """Whether a changed plan fits, and a micro-batch still holds a sample."""
    config = changed(plan.config, change)
    if config.learner.microbatch < config.rollout.longest:
        return False
    return plan.again({"learner.world_size": config.learner.world_size or len(plan.placement.learners)} | change).fits


def _changes(plan: Plan) -> Iterator[Change]:
    """Yield changes to make one after another: those that are needed, that cost time, then that change the result."""
    rollout, learner, cpu = plan.config.rollout, plan.config.learner, not plan.machine.gpus
    needed: Change = {} if plan.computes else {"model.dtype": plan.machine.dtype}
    if plan.cache_too_small and cpu:
        sample = cache_bytes(plan.shape, plan.config.model.dtype, longest_sample(plan.config))
        needed["rollout.kv_cache_gib"] = math.ceil(sample / GIB)
    yield needed
    yield {"learner.offload": "none" if plan.overfull == ["host"] and not cpu else "cpu"}
    yield {"learner.gradient_checkpointing": "on"}
    yield {"learner.tokens_per_microbatch": max(learner.microbatch // 2, rollout.longest)}
    yield {"learner.tokens_per_microbatch": rollout.longest}
    yield {"learner.logprob_chunk": min(64, learner.logprob_chunk)}
    yield {"rollout.max_concurrent_samples": min(32, rollout.concurrent_samples)}
    if cpu and not plan.cache_too_small:
        yield {"rollout.kv_cache_gib": 1}
    if len(plan.placement.learners) > 1:
        yield {"learner.world_size": 1}
    if len(plan.placement.rollouts) > 1:
        yield {"rollout.actors": 1}
    rank, tokens = plan.config.lora.rank, rollout.max_response_tokens
    while (rank := rank // 2) >= 8:
        yield {"lora.rank": rank}
    while (tokens := tokens // 2) >= 256:
        yield {
            "rollout.max_response_tokens": tokens,
            "learner.tokens_per_microbatch": rollout.max_prompt_tokens + tokens,
        }
