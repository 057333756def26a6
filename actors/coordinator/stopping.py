"""Waiting that ends early when the run is told to stop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from microbudget_rl.actors.errors import Interrupted
from microbudget_rl.actors.protocols import Clock

T = TypeVar("T")


class StopController:
    """Lets tasks wait for changes, and ends work when the run is told to stop. reason: empty until then."""

    def __init__(self, clock: Clock, grace_s: float = 0.0) -> None:
        """grace_s: seconds that all running steps together may take after a stop."""
        self.reason = ""
        self._clock, self._grace_s, self._grace_end = clock, grace_s, float("inf")
        self._changed, self._stopped, self._hurried = asyncio.Condition(), asyncio.Event(), asyncio.Event()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self, reason: str) -> None:
        """End the run within the grace period, or at once when called again."""
        if self.stopped:
            self._hurried.set()
            return
        self.reason = reason
        self._grace_end = self._clock.now() + self._grace_s
        self._stopped.set()

    async def notify(self) -> None:
        """Have all waiting tasks look again."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, ready: Callable[[], T | None]) -> T:
        """Return the first result of `ready` that is not None; it is called again after every `notify`."""
        async with self._changed:
            while (result := ready()) is None:
                await self._changed.wait()
        return result

    async def unless_stopped(self, work: Awaitable[T]) -> T | None:
        """Return the result of `work`; cancel it and return None if the run is told to stop first, or was before."""
        task = asyncio.ensure_future(work)
        if self.stopped:
            task.cancel()
        else:
            await _race(task, self._stopped.wait())
        return task.result() if task.done() else None

    async def within_grace(self, work: Awaitable[T]) -> T:
        """Return the result of `work`. Raises Interrupted if the grace period after a stop ends first."""
        task = await _race(work, self._grace_over())
        if not task.done():
            raise Interrupted(self.reason)
        return task.result()

    async def _grace_over(self) -> None:
        await self._stopped.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace_end - self._clock.now()):
                await self._hurried.wait()


async def _race(work: Awaitable[T], end: Coroutine[Any, Any, object]) -> asyncio.Future[T]:
    """Return `work` as a task, which is cancelled unless it is done before `end`."""
    task, ending = asyncio.ensure_future(work), asyncio.create_task(end)
    try:
        await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        return task
    finally:
        task.cancel()
        ending.cancel()
