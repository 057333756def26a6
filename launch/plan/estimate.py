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
from statistics import NormalDist

from actors.coordinator.budget import EVALUATION_SAFETY, MOST_EVALUATION
from actors.models.sizes import adapter_slots, answers_alone, groups_at_once
from actors.runtime.placement import Placement
from conf.schema import Config
from launch.plan.time import Costs, Workload

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

    start_s: seconds until the first group is requested
    tokens: tokens generated per update
    contended: factor by which a shared GPU slows the learner's passes
    """

    config: Config
    start_s: float
    tokens: float
    contended: float
    evaluate_s: float

    @property
    def validate_s(self) -> float:
        """Seconds of validation per update, limited by validation.share."""
        validation, problems = self.config.validation, self.config.eval.problems
        if not validation.every or not problems:
            return 0.0
        each = self.evaluate_s * min(validation.problems, problems) / (problems * self.config.eval.n)
        most = self.update_s * validation.share / (1 - validation.share) if validation.share < 1 else math.inf
        return min(each / validation.every, most)

    @property
    def updates(self) -> int:
        """Number of updates that fit the budget after start, evaluations and validations."""
        return self.updates_in_all(0, 0.0)

    def updates_in_all(self, made: int, spent_s: float) -> int:
        """Return the number of updates of a run that has made so many when it starts again. spent_s: seconds before."""
        budget = self.config.budget
        reserve = min(EVALUATION_SAFETY * self.evaluate_s, MOST_EVALUATION * budget.seconds)
        left = budget.seconds - spent_s - self.start_s - reserve - (0.0 if made else self.evaluate_s)
        updates = made + max(0, int(left / (self.update_s + self.validate_s)))
        return updates if budget.updates is None else min(updates, budget.updates)

    @property
    def spent_s(self) -> float:
        """Seconds of the budget that the run uses: all, unless the number of updates is limited."""
        budget = self.config.budget
        asked = self.start_s + self.updates * (self.update_s + self.validate_s) + 2 * self.evaluate_s
        return min(asked, budget.seconds) if budget.updates else budget.seconds


@dataclass(frozen=True)
class Work:
    """The work per update of one engine and of the learner.

    samples: samples per engine
    steps: decoding steps from the start of a batch to the end of its last sample
    decoded: largest mean number of samples that an engine decodes at once
    fixed_s: seconds of an engine in addition to the fixed cost of its steps
    passes_s, host_s: seconds of the learner on its device, and on the host while that device is free
    gradient_s: the part of passes_s before the adapter check
    """

    samples: float
    steps: float
    decoded: float
    fixed_s: float
    passes_s: float
    host_s: float
    gradient_s: float


def estimate(
    config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int, together: float
) -> Estimate:
    """Return the mean durations of a run. at_once: samples that an engine decodes at once. together: see `TOGETHER`."""
    work = _work(config, costs, workload, placement, at_once)
    staleness, tokens, slots = config.learner.max_staleness, config.adapter_check.tokens, adapter_slots(config)
    contended = 2 / together if placement.shared and staleness else 1.0
    learns_s, tail_s = work.passes_s + work.host_s, config.rollout.samples_per_problem * costs.verify_s
    slowed_s, beside = 0.0, _beside(placement)
    if not staleness:
        alone_s = work.fixed_s + costs.step_s * work.steps + tail_s
        waits_s = max(0.0, tokens * costs.decode_s(config.adapter_check.problems) - work.gradient_s)
        learn_s = learns_s + waits_s + costs.sync_s
        update_s = alone_s + learn_s
    else:
        update_s, steps = work.fixed_s + learns_s, work.steps
        for _ in range(ROUNDS):
            alone_s = work.fixed_s + costs.step_s * steps
            slowed_s = (contended - 1) * min(work.passes_s, alone_s)
            waits_s = max(0.0, tokens * update_s / steps - work.gradient_s)  # for the engines in the adapter check
            learn_s = learns_s + slowed_s + waits_s + costs.sync_s
            steps = max(
                work.samples * workload.response / work.decoded,
                work.steps / max(1 + staleness - learn_s / update_s, LEAST_ROOM),
                work.steps / max(slots - costs.sync_s / update_s, LEAST_ROOM),
            )
            update_s = (update_s + max(work.fixed_s + costs.step_s * steps + beside * slowed_s, learn_s)) / 2
    return Estimate(
        config=config,
        start_s=costs.start_s,
        tokens=work.samples * _engines(config, placement) * workload.response,
        update_s=update_s,
        generate_s=min(alone_s + beside * slowed_s, update_s),
        learn_s=min(learn_s, update_s),
        contended=contended,
        evaluate_s=_evaluate_s(config, costs, workload, placement, at_once),
    )


def _engines(config: Config, placement: Placement) -> int:
    """Return the number of engines that have work: staleness limits the groups in flight."""
    return min(len(placement.rollouts), config.learner.problems_per_update * (1 + config.learner.max_staleness))


def _beside(placement: Placement) -> float:
    """Return the fraction of the engines that share a GPU, or its cores, with the learner."""
    if placement.device == "cuda":
        return placement.shared_gpus / len(placement.rollouts)
    return float(placement.shared)


def _work(config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int) -> Work:
    rollout, learner, length = config.rollout, config.learner, workload.response
    problems, each, most = learner.problems_per_update, rollout.samples_per_problem, rollout.max_response_tokens
    sampled = 1 / workload.varied if learner.dynamic_sampling else 1.0  # groups per group that is trained on
    varied = problems if learner.dynamic_sampling or config.algorithm.regularised else problems * workload.varied
    started = problems * each / _engines(config, placement)
    places = groups_at_once(config, placement.device) * each  # a group keeps its places until its longest sample ends
    decoded = min(at_once, places * length / longest_of(each, workload, most))
    last = longest_of(problems * sampled * each, workload, most)
    full = decoded if learner.max_staleness or places < started else at_once
    gradient_s = varied * (workload.fresh + each * length) * costs.learn_s / len(placement.learners)
    check_s = config.adapter_check.problems * (workload.fresh + config.adapter_check.tokens) * costs.score_s
    on_host = placement.device == "cuda" and learner.offload == "cpu"
    return Work(
        samples=started * sampled,
        steps=max(last, started * length / full + last - length) * sampled,
        decoded=decoded,
        fixed_s=started * sampled * (workload.fresh / each * costs.prefill_s + length * costs.sample_s),
        passes_s=gradient_s + check_s + (0.0 if on_host else costs.update_s),
        host_s=costs.update_s if on_host else 0.0,
        gradient_s=gradient_s,
    )


def _evaluate_s(config: Config, costs: Costs, workload: Workload, placement: Placement, at_once: int) -> float:
    engines, problems = len(placement.rollouts), config.eval.problems
    response = min(workload.response, config.eval.max_response_tokens or math.inf)
    alone = answers_alone(config, placement.device)
    decoded = 1.0 if alone else max(1.0, min(at_once, problems / engines))
    return problems * config.eval.n * response * costs.decode_s(decoded) / decoded / engines


def longest_of(samples: float, workload: Workload, most: int) -> float:
    """Return the expected length of the longest of n samples, tokens: the quantile 1 − 0.56 / n (Blom's plotting
    position) of a gamma distribution, by Wilson and Hilferty's approximation, cut at the limit.
    """
    if samples <= 1 or not workload.spread:
        return min(workload.response, most)
    above = NormalDist().inv_cdf(1 - 0.56 / samples)
    scale = workload.spread / 3
    return float(min(most, workload.response * (1 - scale**2 + above * scale) ** 3))
