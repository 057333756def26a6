"""A thread beside an event loop: no slow disk, logger or remote holds up a run."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Condition, Thread
from typing import TypeVar

from microbudget_rl.conf.errors import in_brief

T = TypeVar("T")


class Worker:
    """Does calls one after the other in a thread, and counts those that fail.

    most: calls that may wait; further ones are lost. strict: after a call that fails none is done, and every further
    `put` raises its error. Without an event loop, a strict worker does a call at once. patience_s: seconds after which
    a call of any other worker counts as a loss, since it hangs. Such a call does not hold up the end of the process.
    """

    def __init__(self, name: str, most: float = math.inf, strict: bool = False, patience_s: float = 60.0) -> None:
        self.name = name
        self._most, self._strict, self._patience_s = most, strict, patience_s
        self._executor, self._lock = ThreadPoolExecutor(1, name), Condition()
        self._calls, self._since = SimpleQueue[Callable[[], None]](), math.inf
        self._waiting = self._lost = 0
        self._reason = self._told = ""
        self._error: Exception | None = None
        if not strict:
            Thread(target=self._serve, name=name, daemon=True).start()

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
            self._calls.put(partial(self._do, call, *arguments))
        elif loop := _running_loop():
            loop.run_in_executor(self._executor, self._do, call, *arguments)
        else:
            self._do(call, *arguments)
            self.check()

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Return the result of work that is done after all calls before it, even if one of them has failed."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def check(self) -> None:
        """Raise the error of a strict worker's call that has failed."""
        if self._strict and self._error is not None:
            raise self._error

    def wait(self, seconds: float) -> None:
        """Wait so long until all calls are done."""
        with self._lock:
            self._lock.wait_for(lambda: self.idle, seconds)

    def losses(self) -> tuple[int, str]:
        """Return the number of calls that were lost since the last look, and the reason, empty if it is not new."""
        if time.monotonic() - self._since >= self._patience_s:
            self._since = math.inf  # counted once
            self._lose(f"it has not answered for {self._patience_s:.0f} s")
        with self._lock:
            losses = self._lost, "" if self._reason == self._told else self._reason
            self._lost, self._told = 0, self._reason
        return losses

    def _lose(self, reason: str) -> None:
        with self._lock:
            self._lost, self._reason = self._lost + 1, reason

    def _serve(self) -> None:
        while True:
            self._calls.get()()

    def _do(self, call: Callable[..., object], *arguments: object) -> None:
        self._since = time.monotonic()
        try:
            if not self._strict or self._error is None:
                call(*arguments)
        except Exception as error:  # of any library: the run goes on without it, or learns it from the next `put`
            self._error = error
            self._lose(in_brief(error))
        finally:
            self._since = math.inf
            with self._lock:
                self._waiting -= 1
                self._lock.notify_all()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
