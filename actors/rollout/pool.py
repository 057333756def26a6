"""Many engines as one that outlives each of them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from actors.errors import ActorDied
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Engine
from actors.runtime.worker_pool import Lost, Record, Restartable, Supervised, WorkerPool


class RestartableEngine(Engine, Restartable, Protocol):
    """An engine that does not heal itself."""


class EngineSlot(Supervised[RestartableEngine]):
    """An engine's place, the versions it holds, and those it has missed, oldest first, which it is given once it is
    well. at_start: see `Engine`.
    """

    def __init__(self, engine: RestartableEngine, clock: Clock, record: Record) -> None:
        super().__init__(engine, clock, record, self._restore)
        self.held: dict[str, AdapterRef] = {}
        self.missed: dict[str, AdapterRef] = {}
        self.at_start: Callable[[str, Engine], Awaitable[None]] | None = None
        self.catching_up: asyncio.Task[None] | None = None
        self._loading: AdapterRef | None = None

    def holds(self, adapter: AdapterRef | None) -> bool:
        return adapter is None or adapter.name in self.held

    async def begin(self) -> None:
        with contextlib.suppress(Lost):  # its successor begins of its own accord
            await self.attempt(self._begin)

    async def take(self, adapter: AdapterRef) -> None:
        """Give the engine a version, now or once it is well."""
        if await self.leave(lambda engine: engine.load(adapter)):
            self.held[adapter.name] = adapter
            return
        self.missed[adapter.name] = adapter
        if self.catching_up is None or self.catching_up.done():
            self.catching_up = asyncio.create_task(self._catch_up())
            self.catching_up.add_done_callback(self._note_failure)

    async def drop(self, adapter: AdapterRef) -> None:
        if self._loading == adapter:
            self._loading = None
        elif adapter.name in self.missed:
            del self.missed[adapter.name]
        elif self.held.pop(adapter.name, None):
            await self.leave(lambda engine: engine.retire(adapter))

    async def close(self) -> None:
        self.abandon()
        if self.catching_up is not None:
            self.catching_up.cancel()
        await self.actor.close()

    async def _begin(self, engine: RestartableEngine) -> None:
        if self.at_start:
            await self.at_start(engine.name, engine)

    async def _catch_up(self) -> None:
        while self.missed:
            await self.recovered()
            if not self.missed:
                return
            name = next(iter(self.missed))
            adapter = self._loading = self.missed.pop(name)
            load = self.insist(lambda engine: engine.load(adapter))  # noqa: B023  # done before the next turn
            if await loaded(load, lambda: self._loading is not None):
                if self._loading:
                    self.held[name] = adapter
                else:
                    await self.leave(lambda engine: engine.retire(adapter))  # noqa: B023  # as above
            self._loading = None

    def _note_failure(self, catching_up: asyncio.Task[None]) -> None:
        """Have an error known that no one may be waiting for; what ended the healing is on record."""
        error = None if catching_up.cancelled() else catching_up.exception()
        if error and not self.given_up:
            self._record(self.actor.name, f"goes on without a version that it could not load; {error!r}")

    async def _restore(self) -> None:
        """Bring a fresh engine to where its predecessor was, or would be by now."""
        given: dict[str, AdapterRef] = {}
        await self._begin(self.actor)
        while True:
            if missing := {name: adapter for name, adapter in self.held.items() if name not in given}:
                name, adapter = next(iter(missing.items()))
                if await loaded(self.actor.load(adapter), lambda: name in self.held):  # noqa: B023  # done by then
                    given[name] = adapter
            elif surplus := [adapter for name, adapter in given.items() if name not in self.held]:
                await self.actor.retire(surplus[0])
                del given[surplus[0].name]
            else:
                return


async def loaded(load: Awaitable[None], wanted: Callable[[], bool]) -> bool:
    """Whether a load succeeded. It need not once its version is wanted no more: the folder may be gone by then."""
    try:
        await load
    except ActorDied:
        raise
    except Exception:
        if wanted():
            raise
        return False
    return True


class EnginePool:
    """Sends each group to the engine with the fewest samples in flight among those that hold its version.

    An engine that dies is replaced and given the versions it had; its groups are asked for again, with the same index,
    version and seed. While that lasts, or if it cannot be, the others go on without it: a version is there once one
    engine holds it. A version that is retired stays everywhere until its last request has ended.
    """

    def __init__(self, engines: Sequence[RestartableEngine], clock: Clock, record: Record) -> None:
        self._berths = [EngineSlot(engine, clock, record) for engine in engines]
        self._crew = WorkerPool(self._berths)
        self._requests: Counter[str] = Counter()
        self._retired: set[str] = set()

    async def ready(self) -> None:
        await asyncio.gather(*(berth.insist(lambda engine: engine.ready()) for berth in self._berths))

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        for berth in self._berths:
            berth.at_start = work
        await asyncio.gather(*(berth.begin() for berth in self._berths))

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        async with self._request(adapter):
            return await self._anyone(index, problem, adapter, sampling)

    async def probe(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        """For an engine that is missing another one answers."""

        async def answer(berth: EngineSlot) -> Group:
            while berth.well and berth.holds(adapter):
                with contextlib.suppress(Lost):
                    return await berth.attempt(lambda engine: engine.generate(index, problem, adapter, sampling))
            return await self._anyone(index, problem, adapter, sampling)

        async with self._request(adapter):
            return tuple(await asyncio.gather(*map(answer, self._berths)))

    async def load(self, adapter: AdapterRef) -> None:
        await asyncio.gather(*(berth.take(adapter) for berth in self._berths))
        coming = {berth.catching_up for berth in self._berths if berth.catching_up}
        while coming and not any(berth.holds(adapter) for berth in self._berths):
            done, coming = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            if not coming:
                done.pop().result()

    async def retire(self, adapter: AdapterRef) -> None:
        self._retired.add(adapter.name)
        await self._drop_if_idle(adapter)

    async def close(self) -> None:
        await asyncio.gather(*(berth.close() for berth in self._berths))

    async def _anyone(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        return await self._crew.anyone(
            lambda engine: engine.generate(index, problem, adapter, sampling),
            sampling.samples,
            able=lambda berth: berth.holds(adapter),
        )

    @contextlib.asynccontextmanager
    async def _request(self, adapter: AdapterRef | None) -> AsyncIterator[None]:
        """Keeps a version in the engines while a request for it is under way."""
        name = adapter.name if adapter else ""
        self._requests[name] += 1
        try:
            yield
        finally:
            self._requests[name] -= 1
            if adapter and name in self._retired:
                await self._drop_if_idle(adapter)

    async def _drop_if_idle(self, adapter: AdapterRef) -> None:
        if not self._requests[adapter.name]:
            self._retired.discard(adapter.name)
            await asyncio.gather(*(berth.drop(adapter) for berth in self._berths))
