"""The one maker of verified groups: from a problem to its responses with their rewards.

Training, warm start, validation, evaluations and the doctor have theirs made here, and say by the functions below how
responses are sampled.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from microbudget_rl.actors.advantages import weigh
from microbudget_rl.actors.clock import cut_off
from microbudget_rl.actors.messages import Group, Request, Sampling, request_seed
from microbudget_rl.actors.protocols import Clock, Sampler, Verifier
from microbudget_rl.conf.schema import Config


@dataclass(frozen=True)
class Attempt:
    """A verified group, with the seconds of its generation and of its verification."""

    group: Group
    generate_s: float
    verify_s: float


@dataclass(frozen=True)
class Attempts:
    """Makes groups by an engine, or several that act as one, and a verifier, and gives their samples advantages."""

    config: Config
    engine: Sampler
    verifier: Verifier
    clock: Clock

    async def make(self, request: Request, on_generated: Callable[[Group], None] = lambda group: None) -> Attempt:
        """Return a verified group. on_generated: called between generation and verification."""
        started = self.clock.now()
        group = await self.engine.generate(request)
        generated = self.clock.now()
        on_generated(group)
        group = await self.verifier.score(group)
        group = replace(group, advantages=weigh(group, self.config.algorithm, self.config.reward.accuracy))
        return Attempt(group, generated - started, self.clock.now() - generated)

    async def make_all(
        self,
        requests: Iterable[Request],
        at_once: int,
        use: Callable[[int, Attempt], None],
        seconds: float | None = None,
    ) -> bool:
        """Make groups, `at_once` at a time, until all are made or the time is over. Return whether all are.

        use: called with the place of a request, counted from 0, and its attempt, in the order in which they end. The
        error of one attempt cancels the others and is raised in an ExceptionGroup.
        """
        free, limit = asyncio.Semaphore(at_once), asyncio.timeout(seconds)

        async def make(place: int, request: Request) -> None:
            use(place, await self.make(request))
            free.release()

        async with cut_off(limit), asyncio.TaskGroup() as attempts:
            for place, request in enumerate(requests):
                await free.acquire()
                attempts.create_task(make(place, request))
        return not limit.expired()


def rollout_sampling(config: Config, purpose: str, index: int, **changes: Any) -> Sampling:
    """Return how a group is sampled in training: from the full distribution, as the learner's gradient needs it.

    purpose, index: the seed follows from them and run.seed. changes: fields of Sampling with another value.
    """
    rollout, seed = config.rollout, request_seed(config.run.seed, purpose, index)
    sampling = Sampling(rollout.samples_per_problem, rollout.max_response_tokens, rollout.temperature, 1.0, seed)
    return replace(sampling, **changes)


def evaluation_sampling(config: Config, purpose: str, index: int) -> Sampling:
    """Return how one response is sampled to evaluate a policy. purpose, index: as for `rollout_sampling`."""
    seed = request_seed(config.run.seed, purpose, index)
    return Sampling(1, response_limit(config), config.eval.temperature, config.eval.top_p, seed)


def response_limit(config: Config) -> int:
    """Return the most tokens of an evaluated response."""
    return config.eval.max_response_tokens or config.rollout.max_response_tokens
