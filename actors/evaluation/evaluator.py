"""Evaluates one policy by n responses to each of m problems, in rounds of one response to every problem.

Wherever an evaluation ends, its complete rounds are an unbiased estimate. `evaluate` is for held-out problems and
validation in a run: it keeps to a deadline and stays in memory. `complete` is for benchmarks: it keeps every sample.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import repeat
from statistics import fmean

from actors.evaluation.protocol import response_limit
from actors.evaluation.samples import SampleFile
from actors.evaluation.statistics import pass_at, share_interval
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Sampler, Verifier
from actors.seeds import request_seed
from actors.storage.documents import Heldout
from conf.schema import Config

AMPLE = 3.0
"""Number of rounds that must fit for the first one to be sampled at once, since the trained policy may be slower."""

PART = 0.25
"""Largest part of a first round that is not sampled at once. Each part should take at most half of the time."""


Evaluation = tuple[Heldout, tuple[Group, ...]]
"""Figures of a policy on the first `problems` held-out problems, and the groups that they are from."""


class Evaluator:
    """Samples responses with the settings of `eval` and has them verified."""

    def __init__(self, config: Config, engine: Sampler, verifier: Verifier, clock: Clock) -> None:
        self._config = config
        self._engine = engine
        self._verifier = verifier
        self._clock = clock

    async def evaluate(
        self, problems: tuple[Problem, ...], adapter: AdapterRef | None, n: int, seconds: float, round_s: float = 0.0
    ) -> Evaluation | None:
        """Sample `n` rounds within so many seconds. Return None if not even one problem fits.

        adapter: None for the base model, which gets the same problems, seeds and limits.
        round_s: seconds that a round is expected to take, 0 while unknown.

        A round that does not finish in time is dropped whole. Where time is short, the first round is sampled in parts,
        in the (random) order of the problems, and the estimate may be from fewer of them.
        """
        started = self._clock.now()
        deadline = started + seconds
        rounds: list[list[Group]] = []
        times: list[float] = []
        size = count = len(problems)
        if round_s and seconds < AMPLE * round_s:
            size = max(1, int(count * min(PART, seconds / round_s / 2)))
        while len(rounds) < n:
            began, sampled = self._clock.now(), list[Group]()
            while len(sampled) < count:
                part = problems[len(sampled) : len(sampled) + (count if rounds else size)]
                done = await self._part(part, adapter, len(rounds) * count + len(sampled), deadline)
                if not done:
                    break
                sampled += done
            if sampled:
                rounds.append(sampled)
                times.append((self._clock.now() - began) * count / len(sampled))
            if len(sampled) < count:
                break
        return evaluation(rounds, times, self._clock.now() - started) if rounds else None

    async def complete(
        self, sample_files: Sequence[SampleFile], at_once: int, on_sample: Callable[[], None] = lambda: None
    ) -> None:
        """Fill sample files, `at_once` samples at a time. Each is kept with the seconds since the sample before.

        The seed of a sample follows from its problem and number alone: base model and adapter share it. A round begins
        as soon as an engine is free, not when the round before has ended.
        """
        free = asyncio.Semaphore(at_once)
        last_s = self._clock.now()

        async def fill(file: SampleFile, number: int, index: int) -> None:
            nonlocal last_s
            problem = file.problems[index]
            seed = request_seed(self._config.run.seed, f"evaluate/{problem.id}", number)
            group = await self._sample(number * len(file.problems) + index, problem, file.adapter, seed)
            seconds, last_s = self._clock.now() - last_s, self._clock.now()
            file.append(number, group, seconds)
            free.release()
            on_sample()

        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(max(file.n for file in sample_files)):
                    missing = [(file, index) for file in sample_files for index in file.missing(number)]
                    for file, index in missing:
                        await free.acquire()
                        tasks.create_task(fill(file, number, index))
        finally:
            for file in sample_files:
                await file.flush()

    async def _part(
        self, problems: tuple[Problem, ...], adapter: AdapterRef | None, first: int, deadline: float
    ) -> list[Group]:
        """Return one sample of each problem; none unless all are complete in time. first: number of the first one."""
        seeds = [request_seed(self._config.run.seed, "eval", first + place) for place in range(len(problems))]
        samples = map(self._sample, range(first, first + len(problems)), problems, repeat(adapter), seeds)
        try:
            async with asyncio.timeout(max(deadline - self._clock.now(), 0.0)), asyncio.TaskGroup() as group:
                tasks = [group.create_task(sample) for sample in samples]
        except TimeoutError:
            return []
        return [task.result() for task in tasks]

    async def _sample(self, index: int, problem: Problem, adapter: AdapterRef | None, seed: int) -> Group:
        settings = self._config.eval
        sampling = Sampling(1, response_limit(self._config), settings.temperature, settings.top_p, seed)
        return await self._verifier.score(await self._engine.generate(index, problem, adapter, sampling))


def evaluation(rounds: list[list[Group]], times: list[float], seconds: float) -> Evaluation:
    """Compute the result of complete rounds. times: seconds that each would have taken with all problems."""
    groups = [group for sampled in rounds for group in sampled]
    right = [
        sum(group.rewards[0].verdict.score == 1.0 for group in of_problem) for of_problem in zip(*rounds, strict=True)
    ]
    n = len(rounds)
    figures = Heldout.model_validate(
        {name: fmean(values) for name, values in pass_at(right, n).items()}
        | {
            "n": n,
            "problems": len(right),
            "ci95": share_interval([of / n for of in right]),
            "mean_length": fmean(group.tokens for group in groups),
            "truncated": fmean(group.samples[0].truncated for group in groups),
            "seconds": seconds,
            "round_seconds": min(times),  # the engine's first steps may have slowed the first one
        }
    )
    return figures, tuple(groups)
