"""Many engines as one, which goes on while single engines are restarted."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from actors.errors import ActorDied
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Engine
from actors.rollout.adapter_slots import AdapterSlots
from actors.runtime.supervision import Lost, Record, Restartable, Supervised, WorkerPool


class RestartableEngine(Engine, Restartable, Protocol):
    """One engine, which does not heal itself."""


class EngineSlot(Supervised[RestartableEngine]):
    """One engine of the pool. A restarted one is healthy once it has loaded all adapters in use."""

    def __init__(self, engine: RestartableEngine, clock: Clock, record: Record, adapters: AdapterSlots) -> None:
        super().__init__(engine, clock, record)
        self._adapters = adapters
        self._at_start: Callable[[str, Engine], Awaitable[None]] | None = None

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        self._at_start = work
        await self.recovered()
        with contextlib.suppress(Lost):  # a restart includes it
            await self.attempt(lambda engine: work(engine.name, engine))

    async def prepare(self) -> None:
        if self._at_start:
            await self._at_start(self.actor.name, self.actor)
        loaded: list[AdapterRef] = []
        while True:
            wanted = self._adapters.in_use  # changes while the engine loads
            if surplus := [adapter for adapter in loaded if adapter not in wanted]:
                await self.actor.retire(surplus[0])
                loaded.remove(surplus[0])
            elif missing := [adapter for adapter in wanted if adapter not in loaded]:
                try:
                    await self.actor.load(missing[0])
                    loaded.append(missing[0])
                except Exception as error:  # the folder of an adapter out of use may be gone
                    if isinstance(error, ActorDied) or missing[0] in self._adapters.in_use:
                        raise
            else:
                return


def generation(*request: Any) -> Callable[[Engine], Awaitable[Group]]:
    return lambda engine: engine.generate(*request)


class EnginePool:
    """Sends each group to the healthy engine with the fewest samples in flight.

    An engine that fails is restarted and given the versions in use; its groups are requested again, with the same
    index, version and seed, from any healthy engine. A retired version stays in all engines until its last request has
    ended. slots: adapters that each engine serves at once.
    """

    def __init__(self, engines: Sequence[RestartableEngine], slots: int, clock: Clock, record: Record) -> None:
        self._adapters = AdapterSlots(slots, self._drop)
        self._slots = [EngineSlot(engine, clock, record, self._adapters) for engine in engines]
        self._pool = WorkerPool(self._slots)

    @property
    def answers(self) -> bool:
        """Whether one of the engines is healthy."""
        return any(slot.healthy for slot in self._slots)

    async def ready(self) -> None:
        await asyncio.gather(*(slot.insist(lambda engine: engine.ready()) for slot in self._slots))

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        await asyncio.gather(*(slot.at_start(work) for slot in self._slots))

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        async with self._adapters.request(adapter):
            return await self._pool.run(generation(index, problem, adapter, sampling), sampling.samples)

    async def generate_on_each(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        """Request a group of every engine; another engine stands in for one that is being restarted."""
        generate = generation(index, problem, adapter, sampling)

        async def answer(slot: EngineSlot) -> Group:
            if slot.healthy:
                with contextlib.suppress(Lost):
                    return await slot.attempt(generate)
            return await self._pool.run(generate, sampling.samples)

        async with self._adapters.request(adapter):
            return tuple(await asyncio.gather(*map(answer, self._slots)))

    async def load(self, adapter: AdapterRef) -> None:
        """Return once all healthy engines, and at least one, have the adapter. A cancelled call keeps no slot."""
        await self._adapters.occupy(adapter)
        try:
            await asyncio.gather(*(slot.apply(lambda engine: engine.load(adapter)) for slot in self._slots))
            await self._pool.least_loaded()
        except asyncio.CancelledError:
            self._adapters.give_up(adapter)
            raise

    async def retire(self, adapter: AdapterRef) -> None:
        await self._adapters.retire(adapter)

    async def close(self) -> None:
        await asyncio.gather(*(slot.close() for slot in self._slots))

    async def _drop(self, adapter: AdapterRef) -> None:
        await asyncio.gather(*(slot.apply(lambda engine: engine.retire(adapter)) for slot in self._slots))
