"""An asyncio event loop whose time jumps to the next timer, so that hours pass in milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits for another one and no timer is left."""


class VirtualSelector(selectors.SelectSelector):
    """Looks at no file: nothing under virtual time waits for one, and to ask the system at every turn was an eighth of
    what a large simulation took.
    """

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
        """What a thread would do takes no time either."""
        future = self.create_future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:  # for who awaits it, as a thread's would be
            future.set_exception(error)
        return future


class VirtualClock:
    """The running loop's virtual time as an `actors.protocols.Clock`."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine under virtual time; raises Deadlock if it can never end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
