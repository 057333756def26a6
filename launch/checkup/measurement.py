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
from typing import Any, TypeVar

from ray.util.placement_group import PlacementGroup

from actors.clock import WallClock
from actors.formats import duration
from actors.messages import AdapterRef, Batch, Group, Problem, Reward, Sample, Sampling, Status, Verdict
from actors.protocols import Clock
from actors.rollout.pool import EnginePool
from actors.rollout.shared_weights import SharedWeights
from actors.runtime.placement import Placement
from actors.runtime.supervision import Record
from launch.plan.measurements import keep, recall
from launch.plan.plan import Plan
from launch.plan.time import Calibration, Costs, costs_of
from learner.actor import RemoteLearner

T = TypeVar("T")

PROMPT = 128
"""Tokens per prompt: enough for the prefill to take as small a part as in a run."""

LONGEST = 256
"""Most tokens per response: some ten seconds on a GPU."""

MICROBATCHES = 4
"""Micro-batches that the learner computes. With fewer, start and end would dominate."""

DOCTOR = "the doctor's check"
"""Name of such a measurement in measurements.json."""

LEAST, MOST = 0.05, 20.0
"""Bounds of a ratio: beyond them, the measurement is wrong."""

TOKEN_IDS = (100, 49_000)
"""Range of ordinary tokens in the bundled model's vocabulary."""


@dataclass(frozen=True)
class Measured:
    """Measured and predicted seconds by kind of work.

    decoded, learned: tokens per second of each alone
    """

    seconds: dict[str, float]
    predicted: dict[str, float]
    decoded: float
    learned: float

    @property
    def calibration(self) -> Calibration:
        ratios: dict[str, Any] = {name: min(max(self.ratio(name), LEAST), MOST) for name in self.seconds}
        return Calibration(of=DOCTOR, **ratios)

    def ratio(self, name: str) -> float:
        return self.seconds[name] / self.predicted[name]

    @property
    def lines(self) -> list[str]:
        """The measurement for a person."""
        return [
            f"generates {self.decoded:,.0f} tokens/s and learns from {self.learned:,.0f}, each alone",
            *(f"{name:<8} {duration(s)}, {self.ratio(name):.2f} of the plan's" for name, s in self.seconds.items()),
        ]


@asynccontextmanager
async def started_engines(
    plan: Plan, model_path: str, clock: Clock, record: Record, reserved: PlacementGroup | None = None
) -> AsyncIterator[tuple[EnginePool, SharedWeights | None, Placement]]:
    """Start the plan's engines, and before them the process with their weights if there is one, until the end of the
    context. The placement knows that process. reserved, record: as for `start_engines`.
    """
    from actors.rollout.shared_weights import SharedWeights
    from launch.session.actors import start_engines

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
    """Start engines and learner like a run, on a running Ray, and measure their work. The plan must have costs.

    record: as for `start_engines`.
    """
    from launch.session.actors import reserve_learners, start_learners

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


async def _measure(plan: Plan, engines: EnginePool, learner: RemoteLearner) -> Measured:
    rollout, rng = plan.config.rollout, random.Random(0)
    each, actors = rollout.samples_per_problem, len(plan.placement.rollouts)
    count = max(plan.at_once // each, 1)  # groups per engine
    longest, prompt = min(LONGEST, rollout.max_response_tokens), min(PROMPT, rollout.max_prompt_tokens)
    adapter = await learner.publish()
    _, sync_s = await timed(engines.load(adapter))

    async def decode(tokens: int, seed: int) -> list[Group]:
        sampling = Sampling(each, tokens, rollout.temperature, 1.0, seed)
        requests = (
            engines.generate(n, Problem(f"{seed}-{n}", "", random_ids(rng, prompt), ""), adapter, sampling)
            for n in range(count * actors)
        )
        return await asyncio.gather(*requests)

    work = batch(plan, rng, adapter)
    await decode(min(8, longest), 1)  # the first use compiles and loads kernels
    await learner.accumulate(Batch(0, work.groups[:1]))
    groups, decode_s = await timed(decode(longest, 2))
    _, learn_s = await timed(learner.accumulate(work))
    _, update_s = await timed(learner.step(0.0))
    await engines.retire(adapter)
    lengths = lengths_of(groups)
    decoding, of_engine = costs(plan, prompt, fmean(lengths)), lengths[: len(lengths) // actors]
    steps_s = max(of_engine) * decoding.step_s + sum(of_engine) * decoding.sample_s
    learned = sum(group.tokens + prompt for group in work.groups)
    learning = costs(plan, prompt, fmean(lengths_of(work.groups)))
    return Measured(
        seconds={"decode": decode_s, "learn": learn_s, "update": update_s, "sync": sync_s},
        predicted={
            "decode": count * prompt * decoding.prefill_s + steps_s,
            "learn": learned * learning.learn_s / len(plan.placement.learners),
            "update": learning.update_s,
            "sync": learning.sync_s,
        },
        decoded=sum(lengths) / decode_s,
        learned=learned / learn_s,
    )


def batch(plan: Plan, rng: random.Random, adapter: AdapterRef) -> Batch:
    """Return about four micro-batches of samples, at most one update's, with the lengths that the plan expects."""
    config, rollout = plan.config, plan.config.rollout
    prompt, length = min(PROMPT, rollout.max_prompt_tokens), max(round(plan.workload.response), 2)
    each = rollout.samples_per_problem
    count = max(1, round(MICROBATCHES * config.learner.tokens_per_microbatch / (prompt + each * length)))
    lengths = [max(1, round(length * (0.5 + number / max(each - 1, 1)))) for number in range(each)]
    groups = range(min(count, config.learner.problems_per_update))
    return Batch(0, tuple(random_group(rng, n, prompt, lengths, adapter) for n in groups))


def random_ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(*TOKEN_IDS) for _ in range(count))


def random_group(rng: random.Random, index: int, prompt: int, lengths: Iterable[int], adapter: AdapterRef) -> Group:
    """Return a group with a prompt and responses of these lengths, tokens; every other response earns 1."""
    problem = Problem(str(index), "", random_ids(rng, prompt), "")
    samples = tuple(Sample(random_ids(rng, length), (-8.0,) * length, "", "stop") for length in lengths)
    verdict = Verdict(0.0, Status.WRONG, None, 0.0)
    rewards = tuple(Reward(float(number % 2), {}, verdict) for number in range(len(samples)))
    return Group(index, problem, adapter, samples, rewards)


def lengths_of(groups: Iterable[Group]) -> list[int]:
    return [len(sample.token_ids) for group in groups for sample in group.samples]


def costs(plan: Plan, prompt: int, response: float) -> Costs:
    """Return the plan's uncorrected seconds for samples of these lengths."""
    work = replace(plan.workload, prompt=prompt, fresh=prompt, response=response, spread=0.0)
    found = costs_of(plan.config, plan.shape, plan.machine, plan.placement, work)
    assert found is not None
    return found


async def timed(work: Awaitable[T]) -> tuple[T, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began


def keep_measured(measured: Measured, plan: Plan) -> bool:
    """Keep a measurement for the next plan, unless a run on this machine has one. Return whether it was kept."""
    before = recall(plan.config, plan.machine)
    if before.of and before.of != DOCTOR:
        return False
    keep(measured.calibration, plan.config, plan.machine)
    return True
