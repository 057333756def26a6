"""Restarts actors that crash, within limits, while the others go on."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NoReturn, Protocol, TypeVar

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.protocols import Clock
from microbudget_rl.actors.storage.documents import EventKind

DEATHS_IN_A_ROW = 3
"""Consecutive crashes without an answer after which an actor is not restarted: the next start would fail too."""

DEATHS_LATELY = 6
LATELY_S = 1800.0
"""An actor that crashes DEATHS_LATELY times within LATELY_S seconds is not restarted: it would use up the budget."""

FIRST_PAUSE_S = 2.0
"""Seconds before the second restart in a row. The first does not wait; any further one would wait twice as long."""


class RestartLimit:
    """Limits an actor's restarts, and the pauses before them: a pure state machine."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._in_a_row = 0
        self._times: deque[float] = deque(maxlen=DEATHS_LATELY)

    @property
    def attempt(self) -> str:
        """The number of the restart after the last crash, in words."""
        return f"attempt {self._in_a_row} of {DEATHS_IN_A_ROW - 1}"

    def answered(self) -> None:
        """Note that the actor has answered since its last restart."""
        self._in_a_row = 0

    def pause(self, now: float, death: ActorDied) -> float:
        """Count a crash and return the seconds until the restart. Raises ActorDied if there is to be none.

        A crash that the one of the weights' process has caused is one with those just before it: a fault of one client
        of NVIDIA's MPS ends all of them.
        """
        if death.caused:
            for _ in range(self._in_a_row):
                self._times.pop()
            self._in_a_row = 0
        self._in_a_row += 1
        self._times.append(now)
        if self._in_a_row >= DEATHS_IN_A_ROW:
            self._give_up(f"{DEATHS_IN_A_ROW} times in a row", death)
        if len(self._times) == DEATHS_LATELY and now - self._times[0] < LATELY_S:
            minutes = (now - self._times[0]) / 60
            self._give_up(f"{DEATHS_LATELY} times in {minutes:.0f} minutes", death)
        return FIRST_PAUSE_S * 2 ** (self._in_a_row - 2) if self._in_a_row > 1 else 0.0

    def _give_up(self, times: str, death: ActorDied) -> NoReturn:
        raise ActorDied(f"{self._name} died {times}, the last time: {death.cause}") from death


class Restartable(Protocol):
    """An actor whose calls raise ActorDied once its process is gone."""

    name: str

    async def revive(self) -> None:
        """Start a fresh process and return once it takes calls. Raises ActorDied if it ends before."""

    async def close(self) -> None: ...


M = TypeVar("M", bound=Restartable)
T = TypeVar("T")

Record = Callable[[str, EventKind, str], None]
"""Records an event of an actor: takes the actor's name, the kind and the detail."""


class Lost(Exception):
    """A request was lost with its actor, which is being restarted."""


class Supervised(Generic[M]):
    """An actor that is restarted when it crashes.

    load: weight of its running work.
    restart: the task that restarts it, None while it is healthy. Once the task has ended, the actor is given up.
    """

    def __init__(self, actor: M, clock: Clock, record: Record) -> None:
        self.actor = actor
        self.load = 0
        self.restart: asyncio.Task[None] | None = None
        self._clock = clock
        self._record = record
        self._limit = RestartLimit(actor.name)
        self._restarts = 0
        self._lost = 0

    @property
    def healthy(self) -> bool:
        return self.restart is None

    @property
    def given_up(self) -> bool:
        return self.restart is not None and self.restart.done()

    async def prepare(self) -> None:
        """Give a restarted actor the state of its predecessor."""

    async def recovered(self) -> None:
        """Return once the actor is healthy. Raises the error that ended its restarts."""
        if self.restart is not None:
            await asyncio.shield(self.restart)

    async def attempt(self, work: Callable[[M], Awaitable[T]], weight: int = 0) -> T:
        """Return the result of work by the actor, which has to be healthy. Raises Lost if it crashes meanwhile."""
        restarts = self._restarts
        self.load += weight
        try:
            result = await work(self.actor)
        except ActorDied as death:
            self._lost += 1
            if self.healthy and restarts == self._restarts:
                self.restart = asyncio.create_task(self._restart(death))
                # A run that ends for another reason does not ask again; what went wrong is recorded all the same.
                self.restart.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise Lost from death
        finally:
            self.load -= weight
        self._limit.answered()
        return result

    async def apply(self, change: Callable[[M], Awaitable[None]]) -> bool:
        """Change the actor's state. Return False if it was not healthy, or has lost the change in a crash."""
        restarts = self._restarts
        if not self.healthy:
            return False
        try:
            await self.attempt(change)
        except Lost:
            return False
        return self.healthy and restarts == self._restarts

    async def insist(self, change: Callable[[M], Awaitable[None]]) -> None:
        """Change the actor's state, and repeat the change after each restart until it holds."""
        await self.recovered()
        while not await self.apply(change):
            await self.recovered()

    async def close(self) -> None:
        if self.restart is not None:
            self.restart.cancel()
        await self.actor.close()

    async def _restart(self, death: ActorDied) -> None:
        name, began = self.actor.name, self._clock.now()
        while True:
            try:
                pause = self._limit.pause(self._clock.now(), death)
            except ActorDied:
                self._record(name, EventKind.DIED, f"{death.cause}; it is not restarted again")
                raise
            self._record(name, EventKind.DIED, f"{death.cause}; restarting, {self._limit.attempt}")
            await self._clock.sleep(pause)
            try:
                await self.actor.revive()
                await self.prepare()
                break
            except ActorDied as again:
                death = again
            except Exception as error:  # another restart would not help
                self._record(name, EventKind.NOT_RESTARTED, repr(error))
                raise
        seconds = self._clock.now() - began
        lost = f"within {seconds:.1f} s, {self._lost} requests sent again"
        self._record(name, EventKind.RESTARTED, lost)
        self._lost = 0
        self._restarts += 1
        self.restart = None


class WorkerPool(Generic[M]):
    """Gives work to workers that can stand in for one another."""

    def __init__(self, workers: Sequence[Supervised[M]]) -> None:
        self.workers = workers

    async def run(self, work: Callable[[M], Awaitable[T]], weight: int) -> T:
        """Return the result of work by the least loaded healthy worker, or by another one if that crashes."""
        while True:
            worker = await self.least_loaded()
            try:
                return await worker.attempt(work, weight)
            except Lost:
                continue

    async def least_loaded(self) -> Supervised[M]:
        """Return the least loaded healthy worker, once there is one. Raises the error that ended all restarts."""
        while not (healthy := [worker for worker in self.workers if worker.healthy]):
            restarts = [worker.restart for worker in self.workers if worker.restart and not worker.given_up]
            if not restarts:
                await self.workers[0].recovered()
            await asyncio.wait(restarts, return_when=asyncio.FIRST_COMPLETED)
        return min(healthy, key=lambda worker: worker.load)
