"""Many engines as one that outlives each of them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from actors.crew import Crew, Lost, Mortal, Post, Record
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Engine


class MortalEngine(Engine, Mortal, Protocol):
    """An engine that does not heal itself."""


class Fleet:
    """Sends each group to the engine with the fewest samples in flight; every engine holds every version.

    An engine that dies is replaced and given the versions it had; its groups are asked for again, with the same index,
    version and seed. A version that is retired stays everywhere until its last request has ended.
    """

    def __init__(self, engines: Sequence[MortalEngine], clock: Clock, record: Record) -> None:
        self._held: list[dict[str, AdapterRef]] = [{} for _ in engines]
        self._posts: list[Post[MortalEngine]] = [
            Post(engine, clock, record, partial(self._reload, engine, held))
            for engine, held in zip(engines, self._held, strict=True)
        ]
        self._crew = Crew(self._posts)
        self._at_start: Callable[[str, Engine], Awaitable[None]] | None = None
        self._whole: bool | None = None
        self._requests: Counter[str] = Counter()
        self._retired: set[str] = set()

    @property
    def in_flight(self) -> list[int]:
        """Samples asked of each engine."""
        return [post.load for post in self._posts]

    async def ready(self) -> None:
        await asyncio.gather(*(post.insist(lambda engine: engine.ready()) for post in self._posts))

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        self._at_start = work
        await asyncio.gather(*map(self._begin, self._posts))

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        async with self._request(adapter):
            return await self._crew.anyone(
                lambda engine: engine.generate(index, problem, adapter, sampling), sampling.samples
            )

    async def probe(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        async with self._request(adapter):
            return tuple(
                await asyncio.gather(
                    *(
                        post.insist(lambda engine: engine.generate(index, problem, adapter, sampling))
                        for post in self._posts
                    )
                )
            )

    async def widen(self, whole: bool) -> None:
        self._whole = whole
        await asyncio.gather(*(post.insist(lambda engine: engine.widen(whole)) for post in self._posts))

    async def load(self, adapter: AdapterRef) -> None:
        await asyncio.gather(*map(partial(self._load, adapter), self._posts, self._held))

    async def retire(self, adapter: AdapterRef) -> None:
        self._retired.add(adapter.name)
        await self._drop_if_idle(adapter)

    async def close(self) -> None:
        for post in self._posts:
            post.abandon()
        await asyncio.gather(*(post.actor.close() for post in self._posts))

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

    async def _begin(self, post: Post[MortalEngine]) -> None:
        with contextlib.suppress(Lost):  # its successor begins of its own accord
            await post.attempt(self._start)

    async def _start(self, engine: MortalEngine) -> None:
        if self._at_start:
            await self._at_start(engine.name, engine)

    async def _load(self, adapter: AdapterRef, post: Post[MortalEngine], held: dict[str, AdapterRef]) -> None:
        await post.insist(lambda engine: engine.load(adapter))
        held[adapter.name] = adapter

    async def _drop_if_idle(self, adapter: AdapterRef) -> None:
        if not self._requests[adapter.name]:
            self._retired.discard(adapter.name)
            await asyncio.gather(*map(partial(self._drop, adapter), self._posts, self._held))

    async def _drop(self, adapter: AdapterRef, post: Post[MortalEngine], held: dict[str, AdapterRef]) -> None:
        async def drop(engine: MortalEngine) -> None:
            del held[adapter.name]
            await engine.retire(adapter)

        with contextlib.suppress(Lost):  # its successor will not have the version
            await post.attempt(drop)

    async def _reload(self, engine: MortalEngine, held: dict[str, AdapterRef]) -> None:
        if self._whole is not None:
            await engine.widen(self._whole)
        await self._start(engine)
        for adapter in list(held.values()):
            await engine.load(adapter)
