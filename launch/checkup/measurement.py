"""Ninety seconds of a run's own actors at a run's work: how fast each is alone, and both at once.

The seconds are compared with those that the plan predicts for the same work; the ratios are what the next plan is
corrected by.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from actors.messages import AdapterRef, Batch, Group, Problem, Reward, Sample, Sampling, Status, Verdict
from actors.rollout.pool import EnginePool
from actors.runtime.clock import WallClock
from actors.runtime.supervision import Record
from conf.schema import Config
from launch.hardware.machine import Machine
from launch.plan.calibration import keep, recall
from launch.plan.plan import Plan
from launch.plan.time import Calibration, Costs, costs_of
from learner.actor import RemoteLearner

T = TypeVar("T")

PROMPT = 128
"""Tokens of the prompts: enough for their prefill to count as little as in a run."""

LONGEST = 256
"""Tokens of an answer at most: on a card some ten seconds."""

MICROBATCHES = 4
"""That the learner computes: fewer would be mostly their beginning and end."""

DOCTOR = "the doctor's check"
"""How a measurement of this kind is named where it is kept."""

LEAST, MOST = 0.05, 20.0
"""Bounds of a ratio: beyond them what was measured was something else."""

TOKEN_IDS = (100, 49_000)
"""Ordinary tokens of the embedded model's vocabulary."""


@dataclass(frozen=True)
class Measured:
    """Seconds of each kind of work, and what the plan predicts for them.

    together: what both would take one after the other, over what they take at once; 1 if nothing is gained.
    decoded, learned: tokens per second alone.
    """

    seconds: dict[str, float]
    predicted: dict[str, float]
    together: float
    decoded: float
    learned: float

    @property
    def calibration(self) -> Calibration:
        ratios = {name: self.seconds[name] / self.predicted[name] for name in self.seconds}
        bounded: dict[str, Any] = {name: min(max(ratio, LEAST), MOST) for name, ratio in ratios.items()}
        return replace(Calibration(together=self.together, of=DOCTOR), **bounded)


async def measure(plan: Plan, model_path: str, folder: Path, record: Record) -> Measured:
    """Start engines and learner as a run does, on a Ray that was started, and have them work. The plan has costs.

    record: of `start_engines`.
    """
    from launch.session.actors import reserve_learners, start_engines, start_ranks

    clock, given = WallClock(), (plan.config, model_path, plan.placement)
    reserved = await reserve_learners(plan.placement)
    engines = start_engines(*given, clock=clock, record=record)
    try:
        await engines.ready()
        ranks = start_ranks(*given, adapters_folder=str(folder / "adapters"), reserved=reserved)
        learner = RemoteLearner(ranks, clock)
        try:
            return await _measure(plan, engines, learner)
        finally:
            await learner.close()
    finally:
        await engines.close()


async def _measure(plan: Plan, engines: EnginePool, learner: RemoteLearner) -> Measured:
    config, rng = plan.config, random.Random(0)
    adapter = await learner.publish()
    _, swap_s = await timed(engines.load(adapter))
    each, actors = config.rollout.samples_per_problem, len(plan.placement.rollouts)
    count = max(plan.at_once // each, 1)  # groups of an engine
    longest = min(LONGEST, config.rollout.max_response_tokens)
    prompt = min(PROMPT, config.rollout.max_prompt_tokens)

    async def decode(tokens: int, seed: int) -> list[Group]:
        sampling = Sampling(each, tokens, config.rollout.temperature, 1.0, seed)
        problems = [Problem(f"{seed}-{n}", "", random_ids(rng, prompt), "") for n in range(count * actors)]
        return await asyncio.gather(
            *(engines.generate(n, problem, adapter, sampling) for n, problem in enumerate(problems))
        )

    work = batch(plan, rng)
    await decode(min(8, longest), 1)  # kernels are compiled and loaded at their first use
    await learner.accumulate(Batch(0, work.groups[:1]))
    groups, decode_s = await timed(decode(longest, 2))
    _, learn_s = await timed(learner.accumulate(work))
    _, both_s = await timed(asyncio.gather(decode(longest, 3), learner.accumulate(work)))
    _, update_s = await timed(learner.step(0.0))
    lengths = [len(sample.token_ids) for group in groups for sample in group.samples]
    decoding, learning = costs(plan, prompt, fmean(lengths)), costs(plan, prompt, mean_length(work))
    learned = sum(group.tokens + prompt for group in work.groups)
    return Measured(
        seconds={"decode": decode_s, "learn": learn_s, "update": update_s, "swap": swap_s},
        predicted={
            "decode": decoding_s(decoding, lengths[: count * each], count * prompt),
            "learn": learned * learning.learn_s / len(plan.placement.learners),
            "update": learning.update_s,
            "swap": learning.swap_s,
        },
        together=(decode_s + learn_s) / both_s,
        decoded=sum(lengths) / decode_s,
        learned=learned / learn_s,
    )


def batch(plan: Plan, rng: random.Random) -> Batch:
    """Return samples as long as the plan takes them to be, four micro-batches of them at least."""
    config, work = plan.config, plan.workload
    prompt = min(PROMPT, config.rollout.max_prompt_tokens)
    each, length = config.rollout.samples_per_problem, max(round(work.response), 2)
    count = max(1, round(MICROBATCHES * config.learner.tokens_per_microbatch / (prompt + each * length)))
    lengths = [max(1, round(length * (0.5 + number / max(each - 1, 1)))) for number in range(each)]
    groups = min(count, config.learner.problems_per_update)
    return Batch(0, tuple(random_group(rng, n, prompt, lengths, AdapterRef(0, 0, "")) for n in range(groups)))


def random_ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(*TOKEN_IDS) for _ in range(count))


def random_group(rng: random.Random, index: int, prompt: int, lengths: Iterable[int], adapter: AdapterRef) -> Group:
    """Return a group with a prompt and responses of so many tokens; every other response earns 1."""
    problem = Problem(str(index), "", random_ids(rng, prompt), "")
    samples = tuple(Sample(random_ids(rng, length), (-8.0,) * length, "", "stop") for length in lengths)
    verdict = Verdict(0.0, Status.WRONG, None, 0.0)
    return Group(
        index, problem, adapter, samples, tuple(Reward(float(i % 2), {}, verdict) for i in range(len(samples)))
    )


def mean_length(work: Batch) -> float:
    return fmean(len(sample.token_ids) for group in work.groups for sample in group.samples)


def costs(plan: Plan, prompt: int, response: float) -> Costs:
    """Return the plan's seconds for samples of these lengths, not corrected by anything."""
    work = replace(plan.workload, prompt=prompt, fresh=prompt, response=response, spread=0.0)
    found = costs_of(plan.config, plan.shape, plan.machine, plan.placement, work)
    assert found is not None
    return found


def decoding_s(costs: Costs, lengths: Sequence[int], prompts: int) -> float:
    """Return the seconds of an engine that draws samples of these lengths at once, after so many tokens of prompts."""
    steps = (sum(length > step for length in lengths) for step in range(max(lengths)))
    return prompts * costs.prefill_s + sum(map(costs.decode_s, steps))


async def timed(work: Awaitable[T]) -> tuple[T, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began


def store(measured: Measured, config: Config, machine: Machine) -> bool:
    """Keep what was measured for the next plan, unless a run on this machine has said more; whether it was kept."""
    known = recall(config, machine)
    if known.of and known.of != DOCTOR:
        return False
    keep(measured.calibration, config, machine)
    return True
