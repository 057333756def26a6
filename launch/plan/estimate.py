"""Seconds per update in closed form: the work of rollouts and learner, and how much of it overlaps.

Under a steady staleness limit η, the groups of a batch start when a version is published, and the update that consumes
them ends at most η + 1 updates later. With P seconds per update, G seconds to generate a batch, L seconds of learning
and S seconds of weight sync,

    G + L ≤ (1 + η) · P,    G + S ≤ slots · P,    P ≥ L.

The second holds because an adapter slot is only free when the last request of its version has ended. Little's law gives
the decoding steps per update: N = samples · length / samples decoded at once. On a shared GPU, engine and learner each
proceed at half of `together` while both compute. Engines on GPUs of their own take over work from the
slower ones.
"""

import math
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

from actors.coordinator.budget import EVALUATION_SAFETY, MOST_EVALUATION, evaluations_reserved
from actors.models.sizes import adapter_slots, answers_alone, groups_at_once
from actors.runtime.placement import Placement
from conf.schema import Config
from launch.plan.time import Costs, Workload
from launch.plan.warm_start import WarmStart, plan_warm_start

ROUNDS = 100
"""Steps of the fixed-point iteration for P; each halves the distance."""

LEAST_ROOM = 0.1
"""Least number of updates that a batch has for its generation; if the learner takes longer, P follows from L."""

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
    warm_start: None for a run without one
    """

    config: Config
    start_s: float
    tokens: float
    contended: float
    evaluate_s: float
    validation_s: float = 0.0
    exams_s: float = 0.0
    warm_start: WarmStart | None = None

    @property
    def warm_start_s(self) -> float:
        """Seconds before the first update beside the start and one evaluation, which overlaps with imitation."""
        if not (warm := self.warm_start):
            return 0.0
        return warm.seconds + max(self.evaluate_s + self.exams_s - (warm.seconds - warm.sample_s), 0.0)

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
        wanted = evaluations_reserved(self.config.final_policies) * self.evaluate_s + EVALUATION_SAFETY * self.exams_s
        reserve = min(wanted, MOST_EVALUATION * budget.seconds) + self.validation_s
        policies = 2 if self.config.starts_apart and not self.warm_start else 1
        before_s = 0.0 if made else policies * self.evaluate_s + self.exams_s + self.warm_start_s
        left = budget.seconds - spent_s - self.start_s - reserve - before_s
        updates = made + max(0, int(left / (self.update_s + self.validate_s)))
        return updates if budget.updates is None else min(updates, budget.updates)

    @property
    def spent_s(self) -> float:
        """Seconds of the budget that the run uses: all, unless the number of updates is limited."""
        budget, updates_s = self.config.budget, self.updates * (self.update_s + self.validate_s)
        asked = self.start_s + self.warm_start_s + updates_s + self.evaluations_s
        return min(asked, budget.seconds) if budget.updates else budget.seconds


def estimate(
    config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int, together: float
) -> Estimate:
    """Return the mean durations of a run. at_once: samples that an engine decodes at once. together: see `TOGETHER`."""
    samples, decoded, all_steps, fixed_s = _generation(config, costs, workload, placement, at_once)
    passes_s, gradient_s, host_s = _learning(config, costs, workload, placement)
    staleness, tokens, slots = config.learner.max_staleness, config.adapter_check.tokens, adapter_slots(config)
    contended = 2 / together if placement.shared and staleness else 1.0
    learns_s, tail_s = passes_s + host_s, config.rollout.samples_per_problem * costs.verify_s
    slowed_s, beside = 0.0, _beside(placement)
    if not staleness:
        alone_s = fixed_s + costs.step_s * all_steps + tail_s
        waits_s = max(0.0, tokens * costs.decode_s(config.adapter_check.problems) - gradient_s)
        learn_s = learns_s + waits_s + costs.sync_s
        update_s = alone_s + learn_s
    else:
        update_s, steps = fixed_s + learns_s, all_steps
        for _ in range(ROUNDS):
            alone_s = fixed_s + costs.step_s * steps
            slowed_s = (contended - 1) * min(passes_s, alone_s)
            waits_s = max(0.0, tokens * update_s / steps - gradient_s)  # for the engines in the adapter check
            learn_s = learns_s + slowed_s + waits_s + costs.sync_s
            steps = max(
                samples * workload.response / decoded,
                all_steps / max(1 + staleness - learn_s / update_s, LEAST_ROOM),
                all_steps / max(slots - costs.sync_s / update_s, LEAST_ROOM),
            )
            update_s = (update_s + max(fixed_s + costs.step_s * steps + beside * slowed_s, learn_s)) / 2
    response_s = _response_s(workload.response, costs, at_once, len(placement.rollouts))
    warms = bool(config.warm_start.source)
    evaluate_s = partial(_evaluate_s, config, costs, workload, placement, at_once)
    return Estimate(
        config=config,
        start_s=costs.start_s,
        tokens=samples * _engines(config, placement) * workload.response,
        update_s=update_s,
        generate_s=min(alone_s + beside * slowed_s, update_s),
        learn_s=min(learn_s, update_s),
        contended=contended,
        evaluate_s=evaluate_s(config.eval.problems, config.eval.n),
        validation_s=evaluate_s(config.validation.problems, 1) if config.validation.every else 0.0,
        warm_start=plan_warm_start(config, costs, workload, placement, response_s) if warms else None,
    )


def _engines(config: Config, placement: Placement) -> int:
    """Return the number of engines that have work: staleness limits the groups in flight."""
    return min(len(placement.rollouts), config.learner.problems_per_update * (1 + config.learner.max_staleness))


def _beside(placement: Placement) -> float:
    """Return the fraction of the engines that share a GPU, or its cores, with the learner."""
    if placement.device == "cuda":
        return placement.shared_gpus / len(placement.rollouts)
    return float(placement.shared)


def _generation(
    config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int
) -> tuple[float, float, float, float]:
    """Return the work of an engine per update: its samples, the largest mean number of them that it decodes at once,
    the decoding steps from the start of a batch to its last sample's end, and its seconds beside these steps.
    """
    problems, each, length = config.learner.problems_per_update, config.rollout.samples_per_problem, workload.response
    most, overlaps = config.rollout.max_response_tokens, config.learner.max_staleness > 0
    sampled = 1 / workload.varied if config.learner.dynamic_sampling else 1.0  # groups per group that is trained on
    started = problems * each / _engines(config, placement)
    places = groups_at_once(config, placement.device) * each  # a group keeps its places until its longest sample ends
    decoded = min(at_once, places * length / longest_of(each, workload, most))
    last = longest_of(problems * sampled * each, workload, most)
    full = decoded if overlaps or places < started else at_once
    steps = max(last, started * length / full + last - length) * sampled
    fixed_s = started * sampled * (workload.fresh / each * costs.prefill_s + length * (costs.sample_s + costs.cache_s))
    return started * sampled, decoded, steps, fixed_s


def _learning(config: Config, costs: Costs, workload: Workload, placement: Placement) -> tuple[float, float, float]:
    """Return the learner's seconds per update: on its device, the part of them before the adapter check, and on the
    host while that device is free.
    """
    learner, check = config.learner, config.adapter_check
    every = learner.dynamic_sampling or config.algorithm.regularised
    varied = learner.problems_per_update * (1 if every else workload.varied)
    group = workload.fresh + config.rollout.samples_per_problem * workload.response
    gradient_s = varied * group * costs.learn_s / len(placement.learners)
    check_s = check.problems * (workload.fresh + check.tokens) * costs.score_s
    on_host = placement.device == "cuda" and learner.offload == "cpu"
    passes_s = gradient_s + check_s + (0.0 if on_host else costs.update_s)
    return passes_s, gradient_s, costs.update_s if on_host else 0.0


def _evaluate_s(
    config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int, problems: int, each: int
) -> float:
    engines = len(placement.rollouts)
    response = min(workload.response, config.eval.max_response_tokens or math.inf)
    alone = answers_alone(config, placement.device)
    decoded = 1.0 if alone else max(1.0, min(at_once, problems / engines))
    prompts_s = problems * workload.fresh * costs.prefill_s / engines  # once: the engine keeps them for later samples
    return prompts_s + problems * each * _response_s(response, costs, decoded, engines)


def _response_s(tokens: float, costs: Costs, decoded: float, engines: int) -> float:
    """Return the seconds of all engines per response, where each decodes so many at once."""
    return tokens * costs.decode_s(decoded) / decoded / engines


def longest_of(samples: float, workload: Workload, most: int) -> float:
    """Return the expected length of the longest of n samples, tokens: the quantile 1 − 0.56 / n (Blom's plotting
    position) of a gamma distribution, by Wilson and Hilferty's approximation, cut at the limit.
    """
    if samples <= 1 or not workload.spread:
        return min(workload.response, most)
    above = NormalDist().inv_cdf(1 - 0.56 / samples)
    scale = workload.spread / 3
    return float(min(most, workload.response * (1 - scale**2 + above * scale) ** 3))
