"""Real time, and deadlines that count only the time in which this process could have got an answer."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

STEP_S = 5.0
"""A deadline is waited for in steps of so many seconds: one that took far longer, since this process was stopped or its
machine slept, counts no more than any other, and is not the last."""

T = TypeVar("T")


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Return the result of work. Raises TimeoutError, and cancels it, after so many seconds; None waits for ever."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    try:
        left = float("inf") if seconds is None else seconds
        while not task.done():
            if left <= 0:
                raise TimeoutError
            step, began = min(left, STEP_S), loop.time()
            await asyncio.wait({task}, timeout=step)
            stopped = loop.time() - began > 2 * step
            left = max(left - step, step) if stopped else left - step
        return task.result()
    finally:
        task.cancel()
