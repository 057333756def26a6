"""The adapters that an engine holds, and when their slots become free."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from actors.messages import AdapterRef


class AdapterSlots:
    """A fixed number of slots for adapters, with a count of the requests on each.

    An adapter takes a free slot, serves requests, and is retired when a newer version has taken over; its slot is free
    once the last of its requests has ended. vLLM would evict an adapter in use; here none enters while no slot is free.
    The pool and each engine count for themselves: Ray cancels a call without waiting for its end, so a request that the
    pool has given up may still run in an engine.

    drop: unloads an adapter before its slot is free, and goes on if those that wait for it are cancelled. They get its
    error.
    """

    def __init__(self, slots: int, drop: Callable[[AdapterRef], Awaitable[None]] | None = None) -> None:
        self._slots = slots
        self._drop = drop
        self._held: dict[str, AdapterRef] = {}
        self._requests = Counter[str]()
        self._retired: set[str] = set()
        self._drops: dict[str, asyncio.Task[None]] = {}
        self._freed = asyncio.Condition()

    @property
    def held(self) -> frozenset[str]:
        """Names of the adapters that have a slot."""
        return frozenset(self._held)

    @property
    def in_use(self) -> tuple[AdapterRef, ...]:
        """Adapters that take requests or still serve some, oldest first."""
        return tuple(adapter for name, adapter in self._held.items() if not self._unused(name))

    async def occupy(self, adapter: AdapterRef) -> None:
        """Take a slot for a new adapter, after waiting for a free one; raises ValueError if its name is in use."""
        async with self._freed:
            await self._freed.wait_for(lambda: len(self._held) < self._slots)
            if adapter.name in self._held:
                raise ValueError(f"adapter {adapter.name} is loaded already")
            self._held[adapter.name] = adapter

    @asynccontextmanager
    async def request(self, adapter: AdapterRef | None) -> AsyncIterator[None]:
        """Keep an adapter while a request uses it; None, the base model, is always there.

        Raises ValueError if the adapter takes no new requests.
        """
        if adapter is None:
            yield
            return
        name = adapter.name
        if name not in self._held or name in self._retired:
            raise ValueError(f"adapter {name} is not served: {', '.join(sorted(self._held)) or 'none'} loaded")
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
        if adapter.name in self._held:
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
            await asyncio.shield(self._drops[name])

    async def _free(self, name: str) -> None:
        try:
            if self._drop:
                await self._drop(self._held[name])
        finally:  # an error must not keep the slot
            del self._held[name], self._requests[name], self._drops[name]
            self._retired.remove(name)
            async with self._freed:
                self._freed.notify_all()
