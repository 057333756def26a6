"""A thread beside an event loop: no slow disk, logger or remote holds up a run."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import TypeVar

from conf.errors import in_brief

T = TypeVar("T")


class Worker:
    """Does calls one after the other in a thread, and counts those that fail.

    most: calls that may wait; further ones are lost. strict: after a call that fails none is done, and every further
    `put` raises its error. Without an event loop, a strict worker does a call at once.
    """

    def __init__(self, name: str, most: float = math.inf, strict: bool = False) -> None:
        self.name = name
        self._most, self._strict = most, strict
        self._thread, self._lock = ThreadPoolExecutor(1, name), Lock()
        self._last: Future[None] | None = None
        self._waiting = self._lost = 0
        self._reason = self._told = ""
        self._error: Exception | None = None

    @property
    def idle(self) -> bool:
        return self._waiting == 0

    def put(self, call: Callable[..., object], *arguments: object, due: bool = False) -> None:
        """Have a call done after those before it. due: it is not lost, however many wait."""
        self.check()
        if self._waiting >= self._most and not due:
            self._lose(f"it is {self._most} calls behind")
            return
        with self._lock:
            self._waiting += 1
        if not self._strict:
            self._last = self._thread.submit(self._do, call, *arguments)
        elif loop := _running_loop():
            loop.run_in_executor(self._thread, self._do, call, *arguments)
        else:
            self._do(call, *arguments)
            self.check()

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Return the result of work that is done after all calls before it, even if one of them has failed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def check(self) -> None:
        """Raise the error of a strict worker's call that has failed."""
        if self._strict and self._error is not None:
            raise self._error

    def wait(self, seconds: float) -> None:
        """Wait so long for the calls so far."""
        wait([self._last] if self._last else [], seconds)

    def losses(self) -> tuple[int, str]:
        """Return the number of calls that were lost since the last look, and the reason, empty if it is not new."""
        with self._lock:
            found = self._lost, "" if self._reason == self._told else self._reason
            self._lost, self._told = 0, self._reason
        return found

    def _lose(self, reason: str) -> None:
        with self._lock:
            self._lost, self._reason = self._lost + 1, reason

    def _do(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            if not self._strict or self._error is None:
                call(*arguments)
        except Exception as error:  # of any library: the run goes on without it, or learns it from the next `put`
            self._error = error
            self._lose(in_brief(error))
        finally:
            with self._lock:
                self._waiting -= 1


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
