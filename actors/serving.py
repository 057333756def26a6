"""The version that new groups are sampled from, and whether the engines truly serve it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from actors.canary import Answers, Canary, Finding, Judgement
from actors.messages import AdapterRef, Problem, Sampling
from actors.outcome import Halted
from actors.protocols import Engine, Learner
from actors.seeds import request_seed
from conf.schema import Config

T = TypeVar("T")


class Serving:
    """Swaps adapters in the engines and has the canary vouch for each.

    policy: the version that new groups are sampled from; None before the first and after a history was abandoned.
    """

    def __init__(
        self, config: Config, engine: Engine, learner: Learner, probes: tuple[Problem, ...], noise: float | None = None
    ) -> None:
        """probes: problems whose answers the canary compares. noise: see `Canary`."""
        self.policy: AdapterRef | None = None
        self._config = config
        self._engine = engine
        self._learner = learner
        self._problems = probes
        self._canary = Canary(config.canary.noise_floor, noise)
        self._outdated: list[AdapterRef] = []
        self._probe: asyncio.Task[tuple[Answers, ...]] | None = None
        self._judgement: Judgement

    @property
    def noise(self) -> float | None:
        """What the canary measured between engine and learner."""
        return self._canary.noise

    @property
    def held(self) -> tuple[AdapterRef, ...]:
        """The versions that engines have, or must be able to load again."""
        return (*self._outdated, *([self.policy] if self.policy else []))

    async def adopt(self, adapter: AdapterRef) -> None:
        """Make a version the one new groups are sampled from, the canary's probes first."""
        await self._engine.load(adapter)
        if self.policy is not None:
            self._outdated.append(self.policy)
        self.policy = adapter
        self._probe = asyncio.create_task(sample_probe(self._config, self._engine, self._problems, adapter))

    async def ask_canary(self) -> Judgement:
        """Compare engine and learner on the policy's version, once; Halted if it is not served faithfully."""
        if self._probe is not None:
            answers = await self._probe
            scores = await self._learner.score(tuple(chain.from_iterable(answers)))
            self._judgement = self._canary.judge(answers, tuple(batched(scores, len(self._problems))))
            self._probe = None
        if self._judgement.finding is Finding.DISAGREES:
            raise Halted(f"canary: {self._judgement.diagnosis}")
        return self._judgement

    async def retire_idle(self, runs: Callable[[int], bool]) -> None:
        """Give up outdated versions that no group needs any more; not before, since calls of an actor may overtake."""
        idle = [adapter for adapter in self._outdated if not runs(adapter.version)]
        self._outdated = [adapter for adapter in self._outdated if adapter not in idle]
        for adapter in idle:
            await self._engine.retire(adapter)

    async def abandon(self) -> None:
        """Give up every version, once the groups on them are cancelled."""
        await self.close()
        held, self._outdated, self.policy = self.held, [], None
        for adapter in held:
            await self._engine.retire(adapter)

    async def close(self) -> None:
        """End a probe that is under way."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})


async def sample_probe(
    config: Config, engine: Engine, problems: Sequence[Problem], adapter: AdapterRef | None
) -> tuple[Answers, ...]:
    """Every engine's answers to the probe problems."""
    by_problem = await asyncio.gather(
        *(
            engine.probe(
                -1 - number,
                problem,
                adapter,
                Sampling(
                    samples=1,
                    max_tokens=config.canary.tokens,
                    temperature=config.rollout.temperature,
                    top_p=1.0,
                    seed=request_seed(config.run.seed, "canary", number),
                ),
            )
            for number, problem in enumerate(problems)
        )
    )
    return tuple(zip(*by_problem, strict=True))


def batched(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    """Consecutive parts of this size."""
    return (tuple(items[start : start + size]) for start in range(0, len(items), size))
