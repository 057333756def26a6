"""Writes files in a thread, so that a slow disk holds up no event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Writer:
    """Does writes one after the other: beside an event loop in one thread, otherwise at once.

    After one that fails, no other is done, and every further call raises its error.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._error: Exception | None = None
        self._last: asyncio.Future[None] | None = None

    @property
    def idle(self) -> bool:
        return self._last is None or self._last.done()

    def put(self, write: Callable[..., object], *arguments: object) -> None:
        """Have a write done after those before it."""
        self.check()
        try:
            self._last = asyncio.get_running_loop().run_in_executor(self._thread, self._do, write, *arguments)
        except RuntimeError:  # without an event loop
            self._do(write, *arguments)
            self.check()

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Return the result of work that is done after all writes before it, even if one of them has failed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def check(self) -> None:
        """Raise the error of a write that has failed."""
        if self._error is not None:
            raise self._error

    def _do(self, write: Callable[..., object], *arguments: object) -> None:
        if self._error is None:
            try:
                write(*arguments)
            except Exception as error:  # raised by the next call
                self._error = error
