"""Many engines as one, which goes on while single engines are restarted, and the adapters that engines hold."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.messages import AdapterRef, Group, Request
from microbudget_rl.actors.protocols import Clock, Engine
from microbudget_rl.actors.runtime.supervision import Lost, Record, Restartable, Supervised, WorkerPool


class AdapterSlots:
    """A fixed number of slots for adapters, with a count of the requests on each.

    An adapter takes a free slot, serves requests, and is retired when a newer version has taken over; its slot is free
    once the last of its requests has ended. vLLM would evict an adapter in use; here none enters while no slot is free.
    The pool and each engine count for themselves: Ray cancels a call without waiting for its end, so a request that the
    pool has given up may still run in an engine.

    drop: unloads an adapter before its slot is free, and goes on if those that wait for it are cancelled. Its error is
    raised by the first call that looks.
    """

    def __init__(self, slots: int, drop: Callable[[AdapterRef], Awaitable[None]] | None = None) -> None:
        self._slots = slots
        self._drop = drop
        self._loaded: dict[str, AdapterRef] = {}
        self._requests = Counter[str]()
        self._retired: set[str] = set()
        self._drops: dict[str, asyncio.Task[None]] = {}
        self._failures: list[Exception] = []
        self._freed = asyncio.Condition()

    @property
    def loaded_names(self) -> frozenset[str]:
        """Names of the adapters that have a slot."""
        return frozenset(self._loaded)

    @property
    def in_use(self) -> tuple[AdapterRef, ...]:
        """Adapters that take requests or still serve some, oldest first."""
        return tuple(adapter for name, adapter in self._loaded.items() if not self._unused(name))

    async def occupy(self, adapter: AdapterRef) -> None:
        """Take a slot for a new adapter, after waiting for a free one; raises ValueError if its name is in use."""
        async with self._freed:
            await self._freed.wait_for(lambda: len(self._loaded) < self._slots)
            self._raise_failure()
            if adapter.name in self._loaded:
                raise ValueError(f"adapter {adapter.name} is loaded already")
            self._loaded[adapter.name] = adapter

    @asynccontextmanager
    async def request(self, adapter: AdapterRef | None) -> AsyncIterator[None]:
        """Keep an adapter, if any, while a request uses it. Raises ValueError if it takes no new ones."""
        if adapter is None:
            yield
            return
        name = adapter.name
        if name not in self._loaded or name in self._retired:
            raise ValueError(f"adapter {name} is not served: {', '.join(sorted(self._loaded)) or 'none'} loaded")
        self._requests[name] += 1
        try:
            yield
        finally:
            self._requests[name] -= 1
            self._drop_if_unused(name)
            await self._dropped(name)

    async def retire(self, adapter: AdapterRef) -> None:
        """Take no more requests for an adapter, if it has a slot; drop it now or with its last request."""
        self.give_up(adapter)
        await self._dropped(adapter.name)

    def give_up(self, adapter: AdapterRef) -> None:
        """Retire an adapter without waiting for its drop."""
        if adapter.name in self._loaded:
            self._retired.add(adapter.name)
            self._drop_if_unused(adapter.name)

    def _unused(self, name: str) -> bool:
        return name in self._retired and not self._requests[name]

    def _drop_if_unused(self, name: str) -> None:
        if self._unused(name) and name not in self._drops:
            self._drops[name] = asyncio.create_task(self._free(name))

    async def _dropped(self, name: str) -> None:
        """Wait for the drop of an adapter, if it has begun."""
        if name in self._drops:
            await asyncio.wait({self._drops[name]})
        self._raise_failure()

    async def _free(self, name: str) -> None:
        try:
            if self._drop:
                await self._drop(self._loaded[name])
        except Exception as error:  # of any engine; it must not keep the slot
            self._failures.append(error)
        finally:
            del self._loaded[name], self._requests[name], self._drops[name]
            self._retired.remove(name)
            async with self._freed:
                self._freed.notify_all()

    def _raise_failure(self) -> None:
        if self._failures:
            raise self._failures.pop()


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

    async def generate(self, request: Request) -> Group:
        async with self._adapters.request(request.adapter):
            return await self._generate(request)

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        """Request a group of every engine; another engine stands in for one that is being restarted."""

        async def answer(slot: EngineSlot) -> Group:
            if slot.healthy:
                with contextlib.suppress(Lost):
                    return await slot.attempt(lambda engine: engine.generate(request))
            return await self._generate(request)

        async with self._adapters.request(request.adapter):
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

    async def _generate(self, request: Request) -> Group:
        return await self._pool.run(lambda engine: engine.generate(request), request.sampling.samples)

    async def _drop(self, adapter: AdapterRef) -> None:
        await asyncio.gather(*(slot.apply(lambda engine: engine.retire(adapter)) for slot in self._slots))
