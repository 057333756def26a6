"""Measures a run's own engines and learner for about ninety seconds: each alone, and both at once.

The ratios of measured to predicted seconds correct the next plan. Under MPS, a learner with each percentage of the
multiprocessors is measured, and settings are compared by the resulting plans.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import ray
from ray.util.placement_group import PlacementGroup

from actors.clock import WallClock
from actors.formats import duration
from actors.messages import AdapterRef, Batch, Group, Problem, Reward, Sample, Sampling, Status, Verdict
from actors.protocols import Clock
from actors.rollout.pool import EnginePool
from actors.rollout.shared_weights import SharedWeights
from actors.runtime.placement import Placement
from actors.runtime.supervision import Record
from conf.schema import Config
from conf.settings import changed
from launch.hardware.machine import Machine
from launch.plan.calibration import keep, recall
from launch.plan.estimate import Estimate
from launch.plan.plan import CACHE_MARGIN, Change, Plan
from launch.plan.time import Calibration, Costs, costs_of, live_context
from learner.actor import RemoteLearner

T = TypeVar("T")

Parts = dict[str, tuple[float, float]]
"""Measured and predicted seconds by kind of work."""

Decoding = tuple[float, float, float]
"""Measured seconds of decoding, and predicted ones: of keys and values, and of the rest."""

PROMPT = 128
"""Tokens per prompt: enough for the prefill to take as small a part as in a run."""

LONGEST = 256
"""Most tokens per response: some ten seconds on a GPU."""

FARTHER = 2
"""Times a prompt's length by which the prompts of a second decoding have to be longer, to tell the seconds of keys and
values from the rest."""

FEW = 64
"""Samples per engine in that decoding: so many long prompts are computed for it."""

MICROBATCHES = 4
"""Micro-batches that the learner computes. With fewer, start and end would dominate."""

PERCENTAGES = (80, 90, 100)
"""Values of run.nvidia_mps_percentage that are measured besides the configured one."""

STALENESS = (1, 2)
"""Values of learner.max_staleness that are compared with the configured one."""

FORGET_S = 0.2
"""Seconds between two checks whether Ray has forgotten the name of an ended actor."""

DOCTOR = "the doctor's check"
"""Name of such a measurement in calibration.json."""

LEAST, MOST = 0.05, 20.0
"""Bounds of a ratio: beyond them, the measurement is wrong."""

TOKEN_IDS = (100, 49_000)
"""Range of ordinary tokens in the bundled model's vocabulary."""


@dataclass(frozen=True)
class Measured:
    """Measured and predicted seconds by kind of work.

    together: see `gain`
    decoded, learned: tokens per second of each alone
    """

    seconds: dict[str, float]
    predicted: dict[str, float]
    together: float
    decoded: float
    learned: float

    @property
    def calibration(self) -> Calibration:
        ratios: dict[str, Any] = {name: min(max(self.ratio(name), LEAST), MOST) for name in self.seconds}
        return Calibration(together=self.together, of=DOCTOR, **ratios)

    def ratio(self, name: str) -> float:
        return self.seconds[name] / self.predicted[name]

    @property
    def lines(self) -> list[str]:
        """The measurement for a person."""
        return [
            f"generates {self.decoded:,.0f} tokens/s and learns from {self.learned:,.0f}, each alone",
            *(f"{name:<8} {duration(s)}, {self.ratio(name):.2f} of the plan's" for name, s in self.seconds.items()),
            f"both at once take {1 / self.together:.0%} of the time they take one after the other",
        ]


@asynccontextmanager
async def started_engines(
    plan: Plan, model_path: str, clock: Clock, record: Record, reserved: PlacementGroup | None = None
) -> AsyncIterator[tuple[EnginePool, SharedWeights | None, Placement]]:
    """Start the plan's engines, and before them the process with their weights if there is one, until the end of the
    context. The placement knows that process. reserved, record: as for `start_engines`.
    """
    from launch.session.actors import start_engines, start_weights

    config, placement = plan.config, plan.placement
    async with AsyncExitStack() as stack:
        if weights := start_weights(config, model_path, placement, clock=clock, record=record):
            stack.push_async_callback(weights.close)
            placement = await weights.mapped_by(placement)
        engines = start_engines(
            config, model_path, placement, clock=clock, record=record, reserved=reserved, weights=weights
        )
        stack.push_async_callback(engines.close)
        yield engines, weights, placement


async def measure_actors(plan: Plan, model_path: str, folder: Path, record: Record) -> dict[int, Measured]:
    """Start engines and learner like a run, on a running Ray, and measure their work. The plan must have costs.

    Return the measurements by run.nvidia_mps_percentage, the configured one first; without MPS there is only that.
    record: as for `start_engines`.
    """
    from launch.session.actors import reserve_learners, start_learners

    clock, configured, found = WallClock(), plan.config.run.nvidia_mps_percentage, dict[int, Measured]()
    reserved = await reserve_learners(plan.placement)
    async with started_engines(plan, model_path, clock, record, reserved) as (engines, weights, placement):
        await engines.ready()
        for percentage in dict.fromkeys((configured, *(PERCENTAGES if plan.config.run.mps else ()))):
            config = changed(plan.config, {"run.nvidia_mps_percentage": percentage})
            ranks = start_learners(
                config, model_path, placement, adapters_folder=str(folder / "adapters"), reserved=reserved
            )
            learner = RemoteLearner(ranks, clock, record, weights)
            try:
                await learner.restore(None, len(found))  # no adapter's name is used twice
                found[percentage] = await _measure(plan, engines, learner)
            finally:
                await learner.close()
            while any(rank.name in ray.util.list_named_actors() for rank in ranks):
                await clock.sleep(FORGET_S)
    return found


def estimates(plan: Plan, found: Mapping[int, Measured]) -> dict[str, Estimate]:
    """Return the estimates with each measured percentage and each staleness, by the settings that a user gives."""
    of_a_run = plan.config.learner.max_staleness
    staleness = (of_a_run,) if plan.config.run.deterministic else sorted({of_a_run, *STALENESS})
    plans: dict[str, Plan] = {}
    for (percentage, measured), most in product(found.items(), staleness):
        change: Change = {"learner.max_staleness": most}
        if len(found) > 1:
            change["run.nvidia_mps_percentage"] = percentage
        name = " ".join(f"{key}={value}" for key, value in change.items())
        plans[name] = plan.again(change, calibration=measured.calibration)
    return {name: made.estimate for name, made in plans.items() if made.estimate}


async def _measure(plan: Plan, engines: EnginePool, learner: RemoteLearner) -> Measured:
    rollout, rng = plan.config.rollout, random.Random(0)
    each, actors = rollout.samples_per_problem, len(plan.placement.rollouts)
    count = max(plan.at_once // each, 1)  # groups per engine
    longest, prompt = min(LONGEST, rollout.max_response_tokens), min(PROMPT, rollout.max_prompt_tokens)
    adapter = await learner.publish()
    _, sync_s = await timed(engines.load(adapter))

    async def decode(
        tokens: int, seed: int, length: int = prompt, number: int = count, samples: int = each
    ) -> list[Group]:
        """length: of a prompt, tokens. number: of prompts per engine; with the same seed they are the same."""
        sampling = Sampling(samples, tokens, rollout.temperature, 1.0, seed)
        ids = (random_ids(random.Random(f"{seed}-{n}"), length) for n in range(number * actors))
        requests = (
            engines.generate(n, Problem(f"{seed}-{n}", "", prompt_ids, ""), adapter, sampling)
            for n, prompt_ids in enumerate(ids)
        )
        return await asyncio.gather(*requests)

    def decoding(groups: list[Group], seconds: float, length: int, computed: int = 0) -> Decoding:
        """computed: prompt tokens that an engine computes."""
        lengths = lengths_of(groups)
        of_engine, planned = lengths[: len(lengths) // actors], costs(plan, length, fmean(lengths))
        rest_s = computed * planned.prefill_s + max(of_engine) * planned.step_s + sum(of_engine) * planned.sample_s
        return seconds, sum(of_engine) * planned.cache_s, rest_s

    work = batch(plan, rng, adapter)
    await decode(min(8, longest), 1)  # the first use compiles and loads kernels
    await learner.accumulate(Batch(0, work.groups[:1]))
    groups, decode_s = await timed(decode(longest, 2))
    near, far, decoded = decoding(groups, decode_s, prompt, count * prompt), None, sum(lengths_of(groups))
    if (longer := longer_prompt(plan, longest)) >= FARTHER * prompt:
        others = longer, min(count * each, FEW), 1  # a prompt per sample: reads of a shared one may be cached
        await decode(1, 3, *others)  # the second time, the keys and values of the prompts are there
        groups, far_s = await timed(decode(longest, 3, *others))
        far = decoding(groups, far_s, longer)
    _, learn_s = await timed(learner.accumulate(work))
    seeds = itertools.count(4)
    together = await gain((decode_s, lambda: decode(longest, next(seeds))), (learn_s, lambda: learner.accumulate(work)))
    _, update_s = await timed(learner.step(0.0))
    await engines.retire(adapter)
    learned = sum(group.tokens + prompt for group in work.groups)
    learning = costs(plan, prompt, fmean(lengths_of(work.groups)))
    parts = ratios(near, far) | {
        "learn": (learn_s, learned * learning.learn_s / len(plan.placement.learners)),
        "update": (update_s, learning.update_s),
        "sync": (sync_s, learning.sync_s),
    }
    return Measured(
        seconds={name: seconds for name, (seconds, _) in parts.items()},
        predicted={name: planned for name, (_, planned) in parts.items()},
        together=together,
        decoded=decoded / decode_s,
        learned=learned / learn_s,
    )


def longer_prompt(plan: Plan, response: int) -> int:
    """Return the tokens of a prompt with which responses have the run's mean context, as far as the KV cache holds as
    many of them as of the run's samples; 0 if prompts are always computed again.
    """
    context = live_context(plan.workload)
    return 0 if plan.config.run.deterministic else int(min(context - response / 2, CACHE_MARGIN * context - response))


def ratios(near: Decoding, far: Decoding | None) -> Parts:
    """Return what two decodings of different contexts say of keys and values, and of the rest: in both these take the
    same multiples of the predicted seconds.
    """
    seconds, cache_s, rest_s = near
    if far is None:
        return {"decode": (seconds, cache_s + rest_s)}
    far_s, far_cache_s, _ = (rest_s / far[2] * each for each in far)  # as much of the rest as the near one
    found = min(max((far_s - seconds) / (far_cache_s - cache_s), LEAST), seconds / cache_s)
    return {"decode": (seconds - found * cache_s, rest_s), "cache": (found * far_cache_s, far_cache_s)}


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


async def gain(*works: tuple[float, Callable[[], Awaitable[Any]]]) -> float:
    """Return the work that is done in a second of both at once, in seconds that it takes alone; 1 means no gain.

    works: two works, each with its seconds alone. The shorter one is repeated until the longer one has ended, or the
    gain could not exceed 1 plus the ratio of the two. Its last repetition ends alone.
    """
    (shorter_s, short), (longer_s, long) = sorted(works, key=lambda each: each[0])
    ending, times = asyncio.ensure_future(timed(long())), list[float]()
    while not ending.done():
        times.append((await timed(short()))[1])
    _, both_s = await ending
    return (longer_s + len(times) * shorter_s - max(sum(times) - both_s, 0.0)) / both_s


async def timed(work: Awaitable[T]) -> tuple[T, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began


def keep_measured(measured: Measured, config: Config, machine: Machine) -> bool:
    """Keep a measurement for the next plan, unless a run on this machine has one. Return whether it was kept."""
    known = recall(config, machine)
    if known.of and known.of != DOCTOR:
        return False
    keep(measured.calibration, config, machine)
    return True
