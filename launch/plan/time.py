"""Seconds of a run's parts, by one formula from rates and sizes, and how much of them overlaps.

It chooses a placement and gives a first figure. What the doctor or a run has measured on the machine corrects it by two
factors, of generation and of learning. A decoding step reads all weights, and the keys and values of each sample.
Learning and prefill multiply matrices.

With max_staleness 0, an update takes generation and learning in turn. With a staleness η above 0 it takes the longest
of these:

- learning
- decoding the samples of an update while the engine always has as many at once as fit
- the P with which a batch, from its first request to its last response, takes (1 + η) P − learning: its groups start
  when a version is published, and the update that consumes them ends at most η + 1 updates later

On a shared GPU, engine and learner each proceed at half of `TOGETHER` while both compute.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from microbudget_rl.actors.coordinator.budget import evaluations_reserve
from microbudget_rl.actors.models.layers import layers_of
from microbudget_rl.actors.models.sizes import (
    DTYPE_BYTES,
    PLAIN,
    QUEUED,
    answers_alone,
    cache_bytes,
    kept_on,
    lora_parameters,
    matmul_parameters,
    shares_prompt,
)
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.rollout import LONGEST
from microbudget_rl.launch.plan.memory import Fit


@dataclass(frozen=True)
class Efficiency:
    """Fractions of a machine's rates that the actors reach, and seconds that no rate explains.

    bandwidth, decode: fraction of bandwidth and of FLOP/s while decoding
    learn: fraction of FLOP/s in the learner's matrix products; prefill reaches the smaller of the two
    step_s: seconds per decoding step for scheduling, sampling and kernel launches, which are the processor's: beside
        a GPU those of a core of 4 to 5 GHz
    unit_s: seconds per layer and hidden unit for the work outside matrix products in a token's passes
    layer_s: seconds per layer of a pass over a micro-batch, in which its kernels are launched
    """

    bandwidth: float
    decode: float
    learn: float
    step_s: float
    unit_s: float = 0.0
    layer_s: float = 0.0


EFFICIENCY = {
    ("cpu", "bfloat16"): Efficiency(bandwidth=1.0, decode=0.34, learn=0.80, step_s=0.07, unit_s=2.4e-7),
    ("cpu", "float32"): Efficiency(bandwidth=1.0, decode=0.50, learn=0.85, step_s=0.02),
    ("cuda", "bfloat16"): Efficiency(bandwidth=0.60, decode=1.0, learn=0.58, step_s=0.006, layer_s=8e-4),
}
"""CPU figures are measured with the bundled model; in bfloat16, on two busy cores with AMX, most of a pass is outside
matrix products. CUDA figures are usual ones for LoRA on models this small, not measured.

Forward and backward through a layer launch 130 kernels and 7 functions of Python, by count: 2 to 3 ms on any GPU. So
the part of its FLOP/s that a learner reaches falls with the GPU's rate over the tokens of a micro-batch and the weights
of a layer, the square of the model's width. At 4,096 tokens, models of 0.5 and 1.5 billion parameters reach 0.53 and
0.56 of 25 TFLOP/s, 0.36 and 0.47 of 150, and 0.11 and 0.23 of 989."""

PLAIN_KERNELS = 0.7
"""Speed of a learner's passes with plain kernels over that with fused ones, which move less memory: by count, 30 to 43
% of an A40's FLOP/s."""

SPEEDS = (0.6, 1.4)
"""Speeds of hardware that has not been measured, over the planned one. Quickstarts on three kinds of server CPUs were
within these bounds."""

TOGETHER = {False: 0.93, True: 1.2}
"""Work that engine and learner do on one GPU at the same time, over the work of one of them alone, by `run.nvidia_mps`.
Without MPS they take turns. With it, memory bounds decoding and arithmetic learning. Usual figures, not measured."""

WEIGHT_S = {"cpu": 1.8e-8, "cuda": 4e-9}
"""Seconds per trained weight and update: the optimizer's step in the host's memory, and the adapter's file, written and
loaded. Measured on two cores; with a GPU by count."""

START_S = {"cpu": 45.0, "cuda": 150.0}
"""Seconds before the first request: imports, weights, engine start, and on a GPU compilation and CUDA graphs."""

FILL = 0.5
"""Mean length of prompts and responses as a fraction of their limits, if it is neither measured nor declared."""

FRESH = 0.5
"""Fraction of a prompt with few-shot examples that differs between problems."""

SPREAD = 0.5
"""Standard deviation of response lengths as a fraction of their mean, if nothing is measured."""

TAIL = 2.0
"""Standard deviations by which the longest of a batch's responses exceeds their mean."""

VARIED = 0.5
"""Fraction of groups with variance, if nothing is measured. In the others all samples are correct, or all wrong."""

Factor = Annotated[float, Field(ge=0.01, le=1e4)]
"""Measured over predicted seconds, within bounds that no machine exceeds."""

TokenCount = Annotated[float, Field(ge=1, le=LONGEST)]


@dataclass(frozen=True)
class Workload:
    """Lengths of a run's samples, and the fraction of groups with variance.

    prompt, response: mean length, tokens
    fresh: tokens of a prompt after the part that all prompts share; engines and learner compute only these
    spread: standard deviation of the response length as a fraction of its mean
    varied: fraction of groups whose samples earn different rewards
    by: who measured it, if it was not a run
    """

    prompt: TokenCount
    fresh: Annotated[float, Field(ge=0, le=LONGEST)]
    response: TokenCount
    spread: Annotated[float, Field(ge=0, le=1e3)]
    varied: Annotated[float, Field(ge=0.01, le=1)]
    by: str = ""

    @property
    def live_context(self) -> float:
        """Mean number of tokens, prompt included, before a sampled token: long responses have more of these tokens."""
        return self.prompt + self.response * (1 + self.spread**2) / 2

    def longest(self, most: int) -> float:
        """Return the tokens of the longest response, for which a batch or an evaluation waits. most: the limit."""
        return min(most, self.response * (1 + TAIL * self.spread))


@dataclass(frozen=True)
class Calibration:
    """What has been measured on this machine.

    generate, learn: measured over predicted seconds of engines and learner
    start_s, workload: measured values; None without a measurement
    of: a description of the measurement; empty if there is none
    """

    generate: Factor = 1.0
    learn: Factor = 1.0
    start_s: Annotated[float, Field(ge=0, le=86400)] | None = None
    workload: Workload | None = None
    of: str = ""


UNMEASURED = Calibration()


def assumed_workload(config: Config) -> Workload:
    """Return the workload that a plan assumes before any measurement."""
    rollout = config.rollout
    prompt = rollout.typical_prompt_tokens or FILL * rollout.max_prompt_tokens
    return Workload(
        prompt=prompt,
        fresh=FRESH * prompt if config.data.few_shot else prompt,
        response=rollout.typical_response_tokens or FILL * rollout.max_response_tokens,
        spread=SPREAD,
        varied=VARIED,
    )


@dataclass(frozen=True)
class Costs:
    """Seconds of one engine and one learner process, each with its GPU or cores to itself.

    step_s, sample_s: per decoding step, and in addition per sample in it
    prefill_s: per prompt token that it computes
    learn_s: per input token of a batch, for the passes of all optimizer steps
    update_s: per batch, for its optimizer steps and the adapter's way to the engines
    """

    step_s: float
    sample_s: float
    prefill_s: float
    learn_s: float
    update_s: float


def costs_of(fit: Fit, workload: Workload, measured: Calibration = UNMEASURED) -> Costs | None:
    """Predict seconds from rates and sizes; None if the GPU's rate in the model's dtype is not known or zero.

    Learning takes per token and step, with N frozen and L trained weights: forward 2 (N + L) operations, twice if
    activations are computed again; backward 2 (N + L) for the activations and 2 L for the adapter. A KL term adds the
    base model's 2 N once. Attention adds 4 · heads · head_dim · layers per token of context to each pass. Updates of
    states, about 3 % of a pass, do not count.
    """
    config, shape, machine, placement = fit.config, fit.shape, fit.machine, fit.placement
    dtype, device, rate = config.model.dtype, placement.device, machine.rates.get(config.model.dtype)
    if not (machine.bandwidth and rate):
        return None
    reached = EFFICIENCY[device, dtype]
    engine, learner = (
        1 if device == "cuda" else len(shares[0].cores) for shares in (placement.rollouts, placement.learners)
    )
    frozen = matmul_parameters(shape)
    trained = lora_parameters(shape, config.lora.rank, config.lora.target_modules)
    context, bandwidth = workload.live_context, machine.bandwidth * engine * reached.bandwidth
    attention = 4 * sum(each.count * each.queries * min(context, each.window) for each in layers_of(shape))
    forward = 2 * (frozen + trained) + attention
    backward = forward + 2 * trained + attention
    forwards = 2 if config.learner.recomputes else 1
    steps, kl = config.algorithm.steps_per_batch, bool(config.algorithm.kl)
    operations = steps * (forwards * forward + backward) + kl * (2 * frozen + attention)
    together = min(config.learner.microbatch, _batch(fit, workload)[1])
    unit_s = shape.hidden_size * reached.unit_s / 3 + reached.layer_s / together
    other_s = shape.num_hidden_layers * unit_s  # per forward pass; a backward takes two
    learn = reached.learn * (PLAIN_KERNELS if kept_on(config, shape, device == "cuda") == PLAIN else 1.0)
    learn_s = operations / (rate * learn) + (steps * (forwards + 2) + kl) * other_s
    token_s = 2 * (frozen + trained) / (rate * engine * reached.decode)
    return Costs(
        step_s=measured.generate * (reached.step_s + (frozen + trained) * DTYPE_BYTES[dtype] / bandwidth),
        sample_s=measured.generate * (token_s + cache_bytes(shape, dtype, context) / bandwidth),
        prefill_s=measured.generate * forward / (rate * engine * min(reached.learn, reached.decode)),
        learn_s=measured.learn * learn_s / learner,
        update_s=measured.learn * steps * trained * WEIGHT_S[device] / len(placement.learners),
    )


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
    def bottleneck(self) -> str:
        return "generation" if self.generate_s > self.learn_s else "learning"


@dataclass(frozen=True, kw_only=True)
class Estimate(Pace):
    """The planned pace, seconds per evaluation, and the number of updates within the budget.

    evaluate_s, validation_s, benchmarks_s: of one policy on the held-out problems, on those that choose, and on all of
        `eval.benchmarks`
    start_s: seconds until the first group is requested
    tokens: tokens generated per update
    """

    config: Config
    start_s: float
    tokens: float
    evaluate_s: float
    validation_s: float
    benchmarks_s: float = 0.0

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
        return self.evaluations * self.evaluate_s + 2 * self.benchmarks_s

    @property
    def updates(self) -> int:
        """Number of updates that fit the budget after start, evaluations and validations."""
        return self.updates_in_all(0, 0.0)

    def updates_in_all(self, made: int, spent_s: float) -> int:
        """Return the number of updates of a run that has made so many when it starts again. spent_s: seconds before."""
        budget = self.config.budget
        reserve = evaluations_reserve(budget.seconds, self.config.final_policies, self.evaluate_s, self.benchmarks_s)
        reserve += self.validation_s
        policies = 1 + self.config.starts_apart
        before_s = 0.0 if made else policies * self.evaluate_s + self.benchmarks_s + self.warm_start_s
        left = budget.seconds - spent_s - self.start_s - reserve - before_s
        updates = made + max(0, int(left / (self.update_s + self.validate_s)))
        return updates if budget.updates is None else min(updates, budget.updates)

    @property
    def update_range(self) -> tuple[int, int]:
        """The fewest and the most updates, if the hardware is as slow or as fast as SPEEDS."""
        times = ("update_s", "evaluate_s", "validation_s", "benchmarks_s")
        low, high = (replace(self, **{name: getattr(self, name) / speed for name in times}) for speed in SPEEDS)
        return low.updates, high.updates

    @property
    def spent_s(self) -> float:
        """Seconds of the budget that the run uses: all, unless the number of updates is limited."""
        budget, updates_s = self.config.budget, self.updates * (self.update_s + self.validate_s)
        needed = self.start_s + self.warm_start_s + updates_s + self.evaluations_s
        return min(needed, budget.seconds) if budget.updates else budget.seconds


def estimate(fit: Fit, workload: Workload, at_once: int, measured: Calibration = UNMEASURED) -> Estimate | None:
    """Return the mean durations of a run, None without rates. at_once: samples that an engine decodes at once."""
    if (costs := costs_of(fit, workload, measured)) is None:
        return None
    config, placement, staleness = fit.config, fit.placement, fit.config.learner.max_staleness
    made, tokens = _batch(fit, workload)
    learn_s = tokens * costs.learn_s + costs.update_s
    own_s, full_s, batch_s = _generation(fit, costs, workload, at_once, made)
    together = TOGETHER[config.run.mps] if placement.device == "cuda" else 1.0
    contended = 2 / together if placement.shared and staleness else 1.0
    slowed_s = (contended - 1) * min(learn_s, own_s + batch_s)
    learn_s += slowed_s
    if staleness:
        versions, engines = 1 + staleness, len(placement.rollouts)
        own_s += slowed_s * (placement.shared_gpus / engines if placement.device == "cuda" else placement.shared)
        both = versions * own_s + batch_s + learn_s  # of P = own_s + batch_s / (versions − learn_s / P)
        paced_s = (both + math.sqrt(both**2 - 4 * versions * own_s * learn_s)) / (2 * versions)
        generate_s = max(own_s + full_s, paced_s)
        update_s = max(generate_s, learn_s)
    else:
        generate_s = own_s + batch_s
        update_s = generate_s + learn_s

    def evaluation_s(problems: int, n: int) -> float:
        engines, most = len(placement.rollouts), config.eval.max_response_tokens or config.rollout.max_response_tokens
        response, samples = min(workload.response, most), problems * n / engines
        decoded = 1.0 if answers_alone(config, placement.device) else max(1.0, min(at_once, problems / engines))
        prompts_s = samples * _prefilled(fit, workload, n) * costs.prefill_s
        steps = workload.longest(most) + max(samples / decoded - 1, 0) * response if samples else 0.0
        return prompts_s + samples * response * costs.sample_s + steps * costs.step_s

    return Estimate(
        config=config,
        start_s=START_S[placement.device] if measured.start_s is None else measured.start_s,
        tokens=made * workload.response,
        update_s=update_s,
        generate_s=generate_s,
        learn_s=learn_s,
        evaluate_s=evaluation_s(config.eval.problems, config.eval.n),
        validation_s=evaluation_s(config.validation_problems, 1) if config.validation_problems else 0.0,
    )


def _batch(fit: Fit, workload: Workload) -> tuple[float, float]:
    """Return the samples of an update, and the input tokens of one learner process.

    Dynamic sampling replaces the groups with zero variance; else the learner skips their passes, if nothing needs them.
    """
    config, learner, check = fit.config, fit.config.learner, fit.config.adapter_check
    groups, each, fresh = learner.problems_per_update, config.rollout.samples_per_problem, workload.fresh
    made = groups / workload.varied if learner.dynamic_sampling else groups
    trained = groups if learner.dynamic_sampling or config.algorithm.regularised else groups * workload.varied
    checked = check.problems * (fresh + check.tokens) / 2  # passes without gradients
    return made * each, trained * (fresh + each * workload.response) / len(fit.placement.learners) + checked


def _prefilled(fit: Fit, workload: Workload, samples: int) -> float:
    """Return the prompt tokens per sample that an engine computes, of so many samples to a prompt."""
    shared = shares_prompt(fit.shape, fit.placement.device, workload.prompt)
    return workload.fresh / samples if shared else workload.prompt


def _generation(fit: Fit, costs: Costs, workload: Workload, at_once: int, made: float) -> tuple[float, float, float]:
    """Return an engine's seconds per update: beside its decoding steps, in them while it is full, and in those from
    a batch's first request to its last response. made: samples of all engines
    """
    rollout, length, samples = fit.config.rollout, workload.response, made / len(fit.placement.rollouts)
    longest = workload.longest(rollout.max_response_tokens)
    places = QUEUED[fit.placement.device] * at_once  # a group keeps them until its longest sample ends
    decoded = min(at_once, places * length / longest)
    prompts_s = samples * _prefilled(fit, workload, rollout.samples_per_problem) * costs.prefill_s
    batch_steps = longest + max(samples / decoded - 1, 0) * length
    full_s = costs.step_s * samples * length / decoded
    return prompts_s + samples * length * costs.sample_s, full_s, costs.step_s * batch_steps
