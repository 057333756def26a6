"""Real time, and deadlines that count only the time in which this process could have got an answer."""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Awaitable, Callable
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


def in_thread(
    seconds: float | None,
    work: Callable[[], T],
    silent_s: float = math.inf,
    moved: Callable[[], float] = lambda: 0.0,
    setting: str = "",
) -> T:
    """Return the result of work that may wait for ever, done by a thread that is left to itself then.

    Raises what the work raises, and TimeoutError after so many seconds, None for any number, or once what `moved`
    returns has been the same for `silent_s`. setting: that the seconds are from, for that error.
    """
    outcome: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(([work()], None))
        except BaseException as error:
            outcome.put(([], error))

    threading.Thread(target=run, daemon=True).start()
    limit = math.inf if seconds is None else seconds
    began = last = time.monotonic()
    before = moved()
    while True:
        try:
            results, error = outcome.get(timeout=min(limit, silent_s, STEP_S))
            break
        except queue.Empty:
            now, seen = time.monotonic(), moved()
            last, before = (last, before) if seen == before else (now, seen)
            if now - last >= silent_s or now - began >= limit:
                within = f"{setting}={limit:g}" if setting else f"{min(limit, silent_s):g} s"
                raise TimeoutError(f"no answer within {within}") from None
    if error is not None:
        raise error
    return results[0]
