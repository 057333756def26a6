"""Seconds per update: decode, learn, sync and verify, and how much of them overlaps.

With max_staleness 0, an update takes the sum of all four. With a staleness η above 0 it takes the longest of these:

- learning: the learner's passes, its optimizer steps and the weight sync
- decoding the samples of an update while the engine always has as many at once as fit
- the P with which a batch, from its first request to its last response, takes (1 + η) P − learning: its groups start
  when a version is published, and the update that consumes them ends at most η + 1 updates later
- the P with which it takes adapter slots · P − sync: a slot is only free when the last request of its version has ended

On a shared GPU, engine and learner each proceed at half of `TOGETHER` while both compute.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from statistics import NormalDist

from actors.coordinator.budget import evaluations_reserve
from actors.models.sizes import adapter_slots, answers_alone, groups_at_once
from actors.runtime.placement import Placement
from conf.schema import Config
from launch.plan.time import SPEEDS, TOGETHER, Costs, Workload

BUSY = 0.8
"""Fraction of the time above which a part is the bottleneck; if neither reaches it, waiting is the bottleneck."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Mean seconds per update, planned or measured.

    generate_s: in which any engine generates
    learn_s: in which the learner computes or waits for the weight sync
    """

    update_s: float
    generate_s: float
    learn_s: float

    @property
    def rollouts_busy(self) -> float:
        return self.generate_s / self.update_s

    @property
    def learner_busy(self) -> float:
        return self.learn_s / self.update_s

    @property
    def bottleneck(self) -> str:
        if max(self.rollouts_busy, self.learner_busy) < BUSY:
            return "waits"
        return "generation" if self.generate_s > self.learn_s else "learning"


@dataclass(frozen=True, kw_only=True)
class Estimate(Pace):
    """The planned pace, seconds per evaluation, and the number of updates within the budget.

    evaluate_s, validation_s, exams_s: of one policy on the held-out problems, on those that choose, and on all of
        `eval.benchmarks`
    start_s: seconds until the first group is requested
    tokens: tokens generated per update
    contended: factor by which a shared GPU slows the learner's passes
    """

    config: Config
    start_s: float
    tokens: float
    contended: float
    evaluate_s: float
    validation_s: float = 0.0
    exams_s: float = 0.0

    @property
    def warm_start_s(self) -> float:
        """Most seconds of the warm start."""
        warm = self.config.warm_start
        return warm.fraction * self.config.budget.seconds if warm.source else 0.0

    @property
    def validate_s(self) -> float:
        """Seconds of validation per update, limited by validation.share."""
        validation = self.config.validation
        most = self.update_s * validation.share / (1 - validation.share) if validation.share < 1 else math.inf
        return min(self.validation_s / max(validation.every, 1), most)

    @property
    def evaluations(self) -> int:
        """Number of evaluations: of the base model, of another start, and of each policy measured at the end."""
        return 1 + self.config.starts_apart + self.config.final_policies

    @property
    def evaluations_s(self) -> float:
        """Seconds of all evaluations. The benchmarks are for base and result alone."""
        return self.evaluations * self.evaluate_s + 2 * self.exams_s

    @property
    def updates(self) -> int:
        """Number of updates that fit the budget after start, evaluations and validations."""
        return self.updates_in_all(0, 0.0)

    def updates_in_all(self, made: int, spent_s: float) -> int:
        """Return the number of updates of a run that has made so many when it starts again. spent_s: seconds before."""
        budget = self.config.budget
        reserve = evaluations_reserve(budget.seconds, self.config.final_policies, self.evaluate_s, self.exams_s)
        reserve += self.validation_s
        policies = 1 + self.config.starts_apart
        before_s = 0.0 if made else policies * self.evaluate_s + self.exams_s + self.warm_start_s
        left = budget.seconds - spent_s - self.start_s - reserve - before_s
        updates = made + max(0, int(left / (self.update_s + self.validate_s)))
        return updates if budget.updates is None else min(updates, budget.updates)

    @property
    def update_range(self) -> tuple[int, int]:
        """The fewest and the most updates, if the hardware is as slow or as fast as SPEEDS."""
        times = ("update_s", "evaluate_s", "validation_s", "exams_s")
        low, high = (replace(self, **{name: getattr(self, name) / speed for name in times}) for speed in SPEEDS)
        return low.updates, high.updates

    @property
    def spent_s(self) -> float:
        """Seconds of the budget that the run uses: all, unless the number of updates is limited."""
        budget, updates_s = self.config.budget, self.updates * (self.update_s + self.validate_s)
        asked = self.start_s + self.warm_start_s + updates_s + self.evaluations_s
        return min(asked, budget.seconds) if budget.updates else budget.seconds


def estimate(config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int) -> Estimate:
    """Return the mean durations of a run. at_once: samples that an engine decodes at once."""
    staleness, slots = config.learner.max_staleness, adapter_slots(config)
    fixed_s, full_s, batch_s = _generation(config, costs, workload, placement, at_once)
    passes_s, beside_s = _learning(config, costs, workload, placement)
    together = TOGETHER[config.run.mps] if placement.device == "cuda" else 1.0
    contended = 2 / together if placement.shared and staleness else 1.0
    slowed_s = (contended - 1) * min(passes_s, fixed_s + batch_s)
    learn_s = passes_s + beside_s + slowed_s + costs.sync_s
    if staleness:
        beside = placement.shared_gpus / len(placement.rollouts) if placement.device == "cuda" else placement.shared
        fixed_s += beside * slowed_s
        paced = _paced(fixed_s, batch_s, 1 + staleness, learn_s), _paced(fixed_s, batch_s, slots, costs.sync_s)
        generate_s = max(fixed_s + full_s, *paced)
        update_s = max(generate_s, learn_s)
    else:
        generate_s = fixed_s + batch_s + config.rollout.samples_per_problem * costs.verify_s
        update_s = generate_s + learn_s
    evaluate_s = partial(_evaluate_s, config, costs, workload, placement, at_once)
    return Estimate(
        config=config,
        start_s=costs.start_s,
        tokens=_samples(config, workload) * workload.response,
        update_s=update_s,
        generate_s=generate_s,
        learn_s=learn_s,
        contended=contended,
        evaluate_s=evaluate_s(config.eval.problems, config.eval.n),
        validation_s=evaluate_s(config.validation.problems, 1) if config.validation.every else 0.0,
    )


def _paced(fixed_s: float, batch_s: float, versions: float, other_s: float) -> float:
    """Return the seconds P per update with which a batch has `versions` · P − other_s.

    fixed_s per update is not decoding steps, so that P = fixed_s + batch_s / (versions − other_s / P).
    """
    both = versions * fixed_s + batch_s + other_s
    return (both + math.sqrt(both**2 - 4 * versions * fixed_s * other_s)) / (2 * versions)


def _engines(config: Config, placement: Placement) -> int:
    """Return the number of engines that have work: staleness limits the groups in flight."""
    return min(len(placement.rollouts), config.learner.problems_per_update * (1 + config.learner.max_staleness))


def _samples(config: Config, workload: Workload) -> float:
    """Return the samples per update. Dynamic sampling replaces the groups without a gradient."""
    trained = config.learner.problems_per_update * config.rollout.samples_per_problem
    return trained / workload.varied if config.learner.dynamic_sampling else trained


def _generation(
    config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int
) -> tuple[float, float, float]:
    """Return an engine's seconds per update: beside its decoding steps, in them while it is full, and in those from
    a batch's first request to its last response.
    """
    each, length, longest = config.rollout.samples_per_problem, workload.response, config.rollout.max_response_tokens
    samples = _samples(config, workload) / _engines(config, placement)
    places = groups_at_once(config, placement.device) * each  # a group keeps its places until its longest sample ends
    decoded = min(at_once, places * length / longest_of(each, workload, longest))
    last = longest_of(config.learner.problems_per_update * each, workload, longest)
    samples_s = samples * (workload.fresh / each * costs.prefill_s + length * costs.sample_s)
    full = decoded if config.learner.max_staleness or places < samples else at_once
    batch_steps = max(last, samples * length / full + last - length)
    return samples_s, costs.step_s * samples * length / decoded, costs.step_s * batch_steps


def _learning(config: Config, costs: Costs, workload: Workload, placement: Placement) -> tuple[float, float]:
    """Return the learner's seconds per update on its device, and while that device is free."""
    learner, check = config.learner, config.adapter_check
    every = learner.dynamic_sampling or config.algorithm.regularised
    groups = learner.problems_per_update * (1 if every else workload.varied)
    tokens = groups * (workload.fresh + config.rollout.samples_per_problem * workload.response)
    checked = check.problems * (workload.fresh + check.tokens) / 2  # passes without gradients
    passes_s = (tokens / len(placement.learners) + checked) * costs.learn_s
    waits_s = max(check.tokens * costs.decode_s(check.problems) - passes_s, 0.0)  # for the engines' part of the check
    on_host = placement.device == "cuda" and learner.offload == "cpu"
    return passes_s + (not on_host) * costs.update_s, waits_s + on_host * costs.update_s


def _evaluate_s(
    config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int, problems: int, each: int
) -> float:
    engines = len(placement.rollouts)
    response = min(workload.response, config.eval.max_response_tokens or math.inf)
    alone = answers_alone(config, placement.device)
    decoded = 1.0 if alone else max(1.0, min(at_once, problems / engines))
    prompts_s = problems * workload.fresh * costs.prefill_s / engines  # once: the engine keeps them for later samples
    return prompts_s + problems * each * response * costs.decode_s(decoded) / decoded / engines


def longest_of(samples: float, workload: Workload, most: int) -> float:
    """Return the expected length of the longest of n samples, tokens: the quantile 1 − 0.56 / n (Blom's plotting
    position) of a gamma distribution, by Wilson and Hilferty's approximation, cut at the limit.
    """
    if samples <= 1 or not workload.spread:
        return min(workload.response, most)
    above = NormalDist().inv_cdf(1 - 0.56 / samples)
    scale = workload.spread / 3
    return float(min(most, workload.response * (1 - scale**2 + above * scale) ** 3))
