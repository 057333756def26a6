"""An engine whose tokens are accounted for."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from actors.coordinator.ledger import Ledger
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Engine


@dataclass
class Pace:
    """Tokens per second of one sample, from all that were drawn to their end."""

    tokens: int = 0
    seconds: float = 0.0


class MeteredEngine:
    """Counts what an engine generates as `tokens/<kind>`.

    How far a cancelled request had come is not known: `tokens/cancelled` is what it would have drawn in its time at the
    usual pace of a sample, at most what was asked for.
    """

    def __init__(self, engine: Engine, kind: str, ledger: Ledger, clock: Clock, pace: Pace) -> None:
        self._engine = engine
        self._kind = kind
        self._ledger = ledger
        self._clock = clock
        self._pace = pace
        self._engines = 1

    async def ready(self) -> None:
        await self._engine.ready()

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        await self._engine.at_start(
            lambda name, engine: work(name, MeteredEngine(engine, self._kind, self._ledger, self._clock, self._pace))
        )

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        started = self._clock.now()
        with self._unless_cancelled(sampling):
            group = await self._engine.generate(index, problem, adapter, sampling)
        self._pace.tokens += group.tokens
        self._pace.seconds += (self._clock.now() - started) * sampling.samples
        self._ledger.count(f"tokens/{self._kind}", group.tokens)
        return group

    async def probe(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        with self._unless_cancelled(sampling, self._engines):
            groups = await self._engine.probe(index, problem, adapter, sampling)
        self._engines = len(groups)
        self._ledger.count(f"tokens/{self._kind}", sum(group.tokens for group in groups))
        return groups

    async def load(self, adapter: AdapterRef) -> None:
        await self._engine.load(adapter)

    async def retire(self, adapter: AdapterRef) -> None:
        await self._engine.retire(adapter)

    async def close(self) -> None:
        await self._engine.close()

    @contextlib.contextmanager
    def _unless_cancelled(self, sampling: Sampling, engines: int = 1) -> Iterator[None]:
        started = self._clock.now()
        try:
            yield
        except asyncio.CancelledError:
            seconds = self._clock.now() - started
            each = seconds * self._pace.tokens / self._pace.seconds if self._pace.seconds else 0.0
            tokens = engines * sampling.samples * min(each, sampling.max_tokens)
            self._ledger.count("tokens/cancelled", int(tokens))
            raise
