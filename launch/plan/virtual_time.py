"""An asyncio event loop whose time jumps to the next timer, so that hours pass in milliseconds; work takes its time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits for another one and no timer is left."""


class VirtualSelector(selectors.SelectSelector):
    """Never looks at a file: nothing here waits for one, and asking the system was an eighth of a large simulation."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, _: Any, work: Any, *arguments: Any) -> Any:  # type: ignore[override]  # no need of its types
        """Do at once, in no time, what a thread would do."""
        future = self.create_future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:  # raised where it is awaited, as a thread's would be
            future.set_exception(error)
        return future


class VirtualClock:
    """The running loop's virtual time as an `actors.protocols.Clock`.

    least_sleep_s: nobody sleeps for less; by this clock only the coordinator does, between two looks at the budget.
    """

    def __init__(self, least_sleep_s: float = 0.0) -> None:
        self._least_sleep_s = least_sleep_s

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, self._least_sleep_s))


class Processor:
    """A card or some cores, shared equally by those that compute on it at the same time.

    together: what they do in all, over what one of them alone would do.
    """

    def __init__(self, together: float = 1.0) -> None:
        self.busy = 0
        self._together = together
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    @property
    def speed(self) -> float:
        """Share of it that each of those at work has."""
        return self._together / self.busy if self.busy > 1 else 1.0

    def listen(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Have these called when the number of those at work changes."""
        self._before.append(before)
        self._after.append(after)

    def change(self, by: int) -> None:
        """Change the number of those at work."""
        for notify in self._before:
            notify()
        self.busy += by
        for notify in self._after:
            notify()
        self._changed.set()

    async def compute(self, seconds: float) -> None:
        """Do a job of so many seconds, which takes longer while others are at work."""
        loop = asyncio.get_running_loop()
        self.change(+1)
        try:
            while seconds > 1e-9:
                self._changed.clear()
                began, speed = loop.time(), self.speed
                try:
                    async with asyncio.timeout(seconds / speed):
                        await self._changed.wait()
                except TimeoutError:
                    return
                seconds -= (loop.time() - began) * speed
        finally:
            self.change(-1)


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine under virtual time; raises Deadlock if it can never end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
