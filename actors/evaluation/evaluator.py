"""Evaluates policies by n responses to each of their problems, in rounds of one response to every problem.

It is the only way to an accuracy: before, during and after a run, and in launch/evaluate.py. The seed of a sample
follows from run.seed, its problem and its number alone: all policies and commands share it.
"""

import asyncio
from collections.abc import Callable

from actors.clock import cut_off
from actors.evaluation.protocol import response_limit
from actors.evaluation.samples import PolicySamples
from actors.messages import Sampling
from actors.protocols import Clock, Sampler, Verifier
from actors.seeds import request_seed
from actors.storage.documents import EvaluatedSample
from conf.schema import Config

AMPLE = 3.0
"""Number of rounds that must fit for all problems to be sampled at once, since the policy may have become slower."""

PART = 0.25
"""Largest part of the problems that is sampled at once otherwise. It should take at most half of the time."""


class Evaluator:
    """Samples responses with the settings of `eval` and has them verified."""

    def __init__(self, config: Config, engine: Sampler, verifier: Verifier, clock: Clock) -> None:
        self._config = config
        self._engine = engine
        self._verifier = verifier
        self._clock = clock

    async def evaluate(
        self,
        *policies: PolicySamples,
        at_once: int,
        seconds: float | None = None,
        on_sample: Callable[[], None] = lambda: None,
    ) -> None:
        """Add the missing samples of policies, `at_once` at a time, until all are complete or the time is over.

        Each is kept with the seconds since the sample before. A round begins as soon as an engine is free, not when the
        round before has ended. Wherever it ends, the complete rounds are an unbiased estimate.
        """
        free = asyncio.Semaphore(at_once)
        last_s = self._clock.now()

        async def sample(policy: PolicySamples, number: int, index: int) -> None:
            nonlocal last_s
            settings, problem = self._config.eval, policy.problems[index]
            seed = request_seed(self._config.run.seed, f"evaluate/{problem.id}", number)
            sampling = Sampling(1, response_limit(self._config), settings.temperature, settings.top_p, seed)
            place = number * len(policy.problems) + index
            group = await self._verifier.score(await self._engine.generate(place, problem, policy.adapter, sampling))
            taken, last_s = self._clock.now() - last_s, self._clock.now()
            policy.add(number, group, taken)
            free.release()
            on_sample()

        try:
            async with cut_off(asyncio.timeout(seconds)), asyncio.TaskGroup() as tasks:
                for number in range(max(policy.n for policy in policies)):
                    missing = [(policy, index) for policy in policies for index in policy.missing(number)]
                    for policy, index in missing:
                        await free.acquire()
                        tasks.create_task(sample(policy, number, index))
        finally:
            for policy in policies:
                await policy.flush()


def part_of(count: int, seconds: float, round_s: float) -> int:
    """Return how many of a number of problems to sample at once: all of them, or a part where time is short.

    round_s: seconds that a round is expected to take, 0 while unknown.
    """
    if not round_s or seconds >= AMPLE * round_s:
        return count
    return max(1, int(count * min(PART, seconds / round_s / 2)))


def counted(samples: PolicySamples, at_once: int) -> list[list[EvaluatedSample]]:
    """Return the samples that count: the complete rounds, or without one the whole parts of the first, or without a
    part those of its first problems.

    at_once: number of problems that were sampled at once, and the size of a part if it is at most PART of them.
    """
    if samples.rounds:
        return samples.of_rounds(samples.rounds)
    return samples.of_parts(min(at_once, max(1, int(len(samples.problems) * PART)))) or samples.of_parts(1)
