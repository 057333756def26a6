"""Many engines as one."""

import asyncio
from collections.abc import Sequence

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Engine


class Fleet:
    """Sends each group to the engine with the fewest samples in flight; every engine holds every version."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = list(engines)
        self.in_flight = [0] * len(self._engines)

    async def ready(self) -> None:
        await asyncio.gather(*(engine.ready() for engine in self._engines))

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        chosen = min(range(len(self._engines)), key=self.in_flight.__getitem__)
        self.in_flight[chosen] += sampling.samples
        try:
            return await self._engines[chosen].generate(index, problem, adapter, sampling)
        finally:
            self.in_flight[chosen] -= sampling.samples

    async def load(self, adapter: AdapterRef) -> None:
        await asyncio.gather(*(engine.load(adapter) for engine in self._engines))

    async def retire(self, adapter: AdapterRef) -> None:
        await asyncio.gather(*(engine.retire(adapter) for engine in self._engines))

    async def close(self) -> None:
        await asyncio.gather(*(engine.close() for engine in self._engines))
