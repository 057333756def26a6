"""What a run waits for, and what ends its waiting."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from actors.errors import Interrupted
from actors.protocols import Clock

T = TypeVar("T")


class StopController:
    """Waits that end early when the run is told to stop.

    reason: why it was told so, empty before. The grace is the time that all steps under way together may still take.
    """

    def __init__(self, clock: Clock) -> None:
        self.reason = ""
        self._clock = clock
        self._changed = asyncio.Condition()
        self._stopped = asyncio.Event()
        self._hurried = asyncio.Event()
        self._grace_end = float("inf")

    @property
    def stopped(self) -> bool:
        """Whether the run was told to stop."""
        return self._stopped.is_set()

    def stop(self, reason: str, grace_s: float) -> None:
        """End the run within the grace; told a second time, at once."""
        if self.stopped:
            self._hurried.set()
            return
        self.reason = reason
        self._grace_end = self._clock.now() + grace_s
        self._stopped.set()

    async def notify(self) -> None:
        """Something changed: whoever waits looks again."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, ready: Callable[[], T | None]) -> T:
        """Wait until `ready` returns something; it is asked again after every `notify`."""
        async with self._changed:
            while (result := ready()) is None:
                await self._changed.wait()
        return result

    async def unless_stopped(self, work: Awaitable[T]) -> T | None:
        """The result of `work`, or None, and the work cancelled, if the run is told to stop first."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            stopped.cancel()

    async def within_grace(self, work: Awaitable[T]) -> T:
        """The result of `work`; Interrupted if the grace after a stop ends first."""
        task = asyncio.ensure_future(work)
        expiry = asyncio.create_task(self._grace_over())
        try:
            await asyncio.wait({task, expiry}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Interrupted(self.reason)
            return task.result()
        finally:
            task.cancel()
            expiry.cancel()

    async def _grace_over(self) -> None:
        await self._stopped.wait()
        hurried = asyncio.create_task(self._hurried.wait())
        grace = asyncio.create_task(self._clock.sleep(max(self._grace_end - self._clock.now(), 0.0)))
        try:
            await asyncio.wait({hurried, grace}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
            grace.cancel()
