"""Counting the tokens that engines generate."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from actors.coordinator.ledger import Ledger
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Sampler


@dataclass
class Pace:
    """Tokens and seconds of all samples that were drawn to their end; engines: that answered the last probe."""

    tokens: int = 0
    seconds: float = 0.0
    engines: int = 1


@dataclass(frozen=True)
class MeteredSampler:
    """A sampler whose tokens are counted as `tokens/<kind>`.

    How far a cancelled request had come is unknown. It is counted as `tokens/cancelled`, estimated from its duration
    and the usual pace of a sample, and limited to what was asked for.
    """

    sampler: Sampler
    kind: str
    ledger: Ledger
    clock: Clock
    pace: Pace

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        started = self.clock.now()
        with self._unless_cancelled(sampling.samples, sampling.max_tokens):
            group = await self.sampler.generate(index, problem, adapter, sampling)
        self.pace.tokens += group.tokens
        self.pace.seconds += (self.clock.now() - started) * sampling.samples
        self.ledger.count(f"tokens/{self.kind}", group.tokens)
        return group

    async def probe(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        with self._unless_cancelled(sampling.samples * self.pace.engines, sampling.max_tokens):
            groups = await self.sampler.probe(index, problem, adapter, sampling)
        self.pace.engines = len(groups)
        self.ledger.count(f"tokens/{self.kind}", sum(group.tokens for group in groups))
        return groups

    @contextlib.contextmanager
    def _unless_cancelled(self, samples: int, max_tokens: int) -> Iterator[None]:
        started = self.clock.now()
        try:
            yield
        except asyncio.CancelledError:
            seconds = self.clock.now() - started
            each = seconds * self.pace.tokens / self.pace.seconds if self.pace.seconds else 0.0
            self.ledger.count("tokens/cancelled", int(samples * min(each, max_tokens)))
            raise
