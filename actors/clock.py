"""Real time, and deadlines that count only the time in which this process could have got an answer."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager
from typing import TypeVar

STEP_S = 5.0
"""Seconds per step of waiting for a deadline. A step that took far longer, because this process was stopped or its
machine slept, counts as one step and is not the last."""

T = TypeVar("T")


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Return the result of work. After so many seconds cancel it and raise TimeoutError; None waits for ever."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    try:
        left = math.inf if seconds is None else seconds
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


@asynccontextmanager
async def cut_off(limit: asyncio.Timeout) -> AsyncIterator[asyncio.Timeout]:
    """Leave the block quietly once the limit ends it. Any other TimeoutError, such as a network mount's, is raised."""
    try:
        async with limit:
            yield limit
    except TimeoutError:
        if not limit.expired():
            raise


def in_thread(
    seconds: float | None, work: Callable[[], T], setting: str = "", moved: Callable[[], int] = lambda: 0
) -> T:
    """Return the result of work that may never end. It runs in a thread, which is abandoned after the time limit.

    Raises the work's error, or TimeoutError after so many seconds (None: never) without a change of the result of
    `moved`. setting: the setting that gives them, for that error.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    seen = moved()
    while not wait({future}, seconds).done:
        previous, seen = seen, moved()
        if previous == seen:
            limit = f"{setting}={seconds:g}" if setting else f"{seconds:g} s"
            raise TimeoutError(f"no answer within {limit}")
    return future.result()
