"""Calls to other machines within limits: how many at a time and in a minute, how long each, and how often again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from conf.schema.reward import RemoteConfig

PAUSES_S = (1.0, 2.0, 4.0)
"""Pauses before further attempts, unless the server asks for longer ones."""

BUSY = (408, 425, 429)
"""Statuses of HTTP below 500 after which another attempt may succeed."""

MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)
"""Errors that another attempt would raise again."""

T = TypeVar("T")


class Final(Exception):
    """An error after which there is no other attempt."""


class Late(TimeoutError):
    """A call was not over by its deadline."""


class Calls:
    """Makes calls within limits, in one event loop."""

    def __init__(self, limits: RemoteConfig) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(limits.concurrency)
        self._next = 0.0

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a call, which is repeated after errors that may pass. Raises Late at the
        deadline of all attempts together, or the last error.
        """
        async with self._free:
            now = asyncio.get_running_loop().time()
            turn = max(self._next, now)
            self._next = turn + 60 / self._limits.per_minute
            await asyncio.sleep(turn - now)
            try:
                async with asyncio.timeout(self._limits.deadline_s) as deadline:
                    return await self._attempts(call)
            except TimeoutError:
                if deadline.expired():
                    raise Late from None
                raise

    async def _attempts(self, call: Callable[[], Awaitable[T]]) -> T:
        for pause_s in PAUSES_S:
            try:
                return await call()
            except (Final, *MISTAKES):
                raise
            except Exception as error:
                response = getattr(error, "response", None)  # of openai, httpx and requests
                status = getattr(response, "status_code", 500)
                if status < 500 and status not in BUSY:
                    raise
                asked = getattr(response, "headers", {}).get("retry-after", "")
            await asyncio.sleep(max(pause_s, float(asked) if asked.isdecimal() else 0.0))
        return await call()


def most_seconds(limits: RemoteConfig, calls: int) -> float:
    """Return the most seconds that so many calls take together."""
    return -(-calls // limits.concurrency) * limits.deadline_s + calls * 60 / limits.per_minute
