"""Measures a run's own engines and learner for about a minute, each alone.

The ratios of measured to predicted seconds correct the next plan.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from microbudget_rl.actors.attempt import rollout_sampling
from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Problem, Request, Reward, Sample, Status, Verdict
from microbudget_rl.actors.protocols import Clock, Learner
from microbudget_rl.actors.rollout.pool import EnginePool
from microbudget_rl.actors.rollout.shared_weights import SharedWeights
from microbudget_rl.actors.runtime.placement import Placement
from microbudget_rl.actors.runtime.supervision import Record
from microbudget_rl.launch.plan.measurements import keep, recall
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.launch.plan.time import Calibration, costs_of
from microbudget_rl.learner.actor import RemoteLearner

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

T = TypeVar("T")

PROMPT = 128
"""Tokens per prompt: enough for the prefill to take as small a part as in a run."""

LONGEST = 256
"""Most tokens per response: some ten seconds on a GPU."""

MICROBATCHES = 4
"""Micro-batches that the learner computes, or all of an update: with fewer, start and end would dominate."""

DOCTOR = "the doctor's check"
"""Name of such a measurement in measurements.json."""

TOKEN_IDS = (100, 32_000)
"""Range of ordinary tokens in the smallest vocabulary, that of Llama 2."""


@dataclass(frozen=True)
class Measured:
    """Tokens per second of the engines and of the learner, each alone, and the ratios to the plan's seconds."""

    decoded: float
    learned: float
    calibration: Calibration

    def __str__(self) -> str:
        ratios = self.calibration
        return (
            f"generates {self.decoded:,.0f} tokens/s, in {ratios.generate:.2f} of the plan's time\n"
            f"learns from {self.learned:,.0f} tokens/s, in {ratios.learn:.2f} of the plan's time; each was alone"
        )


@asynccontextmanager
async def started_engines(
    plan: Plan, model_path: str, clock: Clock, record: Record, reserved: "PlacementGroup | None" = None
) -> AsyncIterator[tuple[EnginePool, SharedWeights | None, Placement]]:
    """Start the plan's engines, and before them the process with their weights if there is one, until the end of the
    context. The placement knows that process. reserved, record: as for `start_engines`.
    """
    from microbudget_rl.actors.rollout.shared_weights import SharedWeights
    from microbudget_rl.launch.session.actors import start_engines

    config, placement = plan.config, plan.placement
    async with AsyncExitStack() as stack:
        weights = None
        if placement.weights:
            weights = SharedWeights(config, model_path, placement.weights, clock, record)
            stack.push_async_callback(weights.close)
            placement = await weights.mapped_by(placement)
        engines = start_engines(config, model_path, placement, clock, record, reserved, weights)
        stack.push_async_callback(engines.close)
        yield engines, weights, placement


async def measure_actors(plan: Plan, model_path: str, folder: Path, record: Record) -> Measured:
    """Measure the plan's engines and learner, on a running Ray. The plan must have an estimate."""
    from microbudget_rl.launch.session.actors import reserve_learners, start_learners

    clock, reserved = WallClock(), await reserve_learners(plan.placement)
    async with started_engines(plan, model_path, clock, record, reserved) as (engines, weights, placement):
        await engines.ready()
        ranks = start_learners(plan.config, model_path, placement, str(folder / "adapters"), reserved)
        learner = RemoteLearner(ranks, clock, record, weights)
        try:
            await learner.restore(None, 0)
            return await _measure(plan, engines, learner)
        finally:
            await learner.close()


async def _measure(plan: Plan, engines: EnginePool, learner: Learner) -> Measured:
    config, rollout, rng = plan.config, plan.config.rollout, random.Random(0)
    each, actors, ranks = rollout.samples_per_problem, len(plan.placement.rollouts), len(plan.placement.learners)
    longest, prompt = min(LONGEST, rollout.max_response_tokens), min(PROMPT, rollout.max_prompt_tokens)
    decoding, expected = max(plan.at_once // each, 1), round(plan.workload.response)  # groups per engine, tokens
    adapter = await learner.publish()
    await engines.load(adapter)

    async def decode(tokens: int, seed: int) -> list[Group]:
        sampling = rollout_sampling(config, "speeds", seed, max_tokens=tokens)
        requests = (
            engines.generate(Request(n, Problem(f"{seed}-{n}", "", random_ids(rng, prompt), ""), adapter, sampling))
            for n in range(decoding * actors)
        )
        return await asyncio.gather(*requests)

    learning = round(MICROBATCHES * config.learner.microbatch / (prompt + each * expected))
    learning = min(max(learning, 1), config.learner.problems_per_update)
    batch = [random_group(rng, n, prompt, [expected] * each, adapter) for n in range(learning)]
    await decode(min(8, longest), 1)  # the first use compiles and loads kernels
    await learner.accumulate(Batch(0, tuple(batch[:1])))
    groups, decode_s = await timed(decode(longest, 2))
    _, learn_s = await timed(learner.accumulate(Batch(0, tuple(batch))))
    _, update_s = await timed(learner.step(config.learner.learning_rate))
    await engines.retire(adapter)

    learned = sum(group.tokens + prompt for group in batch)
    lengths = [len(sample.token_ids) for group in groups for sample in group.samples]
    work = replace(plan.workload, prompt=prompt, fresh=prompt, spread=0.0)
    of_engine, of_learner = (costs_of(plan, replace(work, response=tokens)) for tokens in (fmean(lengths), expected))
    assert of_engine is not None
    assert of_learner is not None
    planned_s = decoding * prompt * of_engine.prefill_s + max(lengths) * of_engine.step_s
    planned_s += sum(lengths) / actors * of_engine.sample_s
    ratio = (learn_s + update_s) / (learned * of_learner.learn_s / ranks + of_learner.update_s)
    return Measured(
        sum(lengths) / decode_s,
        learned / learn_s,
        Calibration(generate=decode_s / planned_s, learn=ratio, of=DOCTOR),
    )


def random_ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(*TOKEN_IDS) for _ in range(count))


def random_group(rng: random.Random, index: int, prompt: int, lengths: Iterable[int], adapter: AdapterRef) -> Group:
    """Return a group with a prompt and responses of these lengths, tokens; every other response earns 1."""
    problem = Problem(str(index), "", random_ids(rng, prompt), "")
    samples = tuple(Sample(random_ids(rng, length), (-8.0,) * length, "", "stop") for length in lengths)
    verdict = Verdict(0.0, Status.WRONG, None, 0.0)
    rewards = tuple(Reward(float(number % 2), {}, verdict) for number in range(len(samples)))
    advantages = tuple(reward.total - 0.5 for reward in rewards)
    return Group(index, problem, adapter, samples, rewards, advantages)


async def timed(work: Awaitable[T]) -> tuple[T, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began


def keep_measured(measured: Calibration, plan: Plan) -> bool:
    """Keep a measurement for the next plan, unless a run on this machine has one. Return whether it was kept."""
    before = recall(plan.config, plan.machine)
    if before.of and before.of != DOCTOR:
        return False
    keep(measured, plan.config, plan.machine)
    return True
