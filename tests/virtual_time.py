"""An asyncio event loop whose time jumps to the next timer, so that hours pass in milliseconds; work takes its time."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits for another one and no timer is left."""


class VirtualSelector(selectors.SelectSelector):
    """Never looks at a file: nothing here waits for one."""

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
        """Do a thread's work at once, in no time."""
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


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine under virtual time; raises Deadlock if it can never end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in virtual time."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        run_virtually(test(**given))

    return run
