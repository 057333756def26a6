"""Actors that may die, and the work that goes on when they do."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from actors.errors import ActorDied
from actors.protocols import Clock
from actors.runtime.deaths import Deaths


class Restartable(Protocol):
    """An actor whose calls raise ActorDied once its process is gone."""

    name: str

    async def revive(self) -> None:
        """Put a fresh process in its place and return once that takes calls; ActorDied if it dies of it."""
        ...


M = TypeVar("M", bound=Restartable)
T = TypeVar("T")

OUTDATED = 8
"""Entries of a crew's heap for each post, at most: most are outdated then, and it is made anew."""

Record = Callable[[str, str], None]
"""Takes an actor's name, and what became of it in one sentence."""


class Lost(Exception):
    """A request that died with its actor."""


class Supervised(Generic[M]):
    """One actor's place, whoever holds it. load: weight of the work that it has; on_load is called when that changes.

    prepare: brings a revived actor to where its predecessor was.
    """

    def __init__(
        self, actor: M, clock: Clock, record: Record, prepare: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.actor = actor
        self.load = 0
        self.on_load: Callable[[], None] = lambda: None
        self._clock = clock
        self._record = record
        self._prepare = prepare
        self._deaths = Deaths(actor.name)
        self._life = 0
        self._lost = 0
        self._healing: asyncio.Task[None] | None = None

    @property
    def well(self) -> bool:
        return self._healing is None

    @property
    def given_up(self) -> bool:
        """Whether the actor is not replaced any more: it has died too often, or something else went wrong."""
        return self._healing is not None and self._healing.done()

    async def recovered(self) -> None:
        """Return once the actor is well; raises what keeps it from that, ActorDied if it has died too often."""
        if self._healing is not None:
            await asyncio.shield(self._healing)

    async def attempt(self, work: Callable[[M], Awaitable[T]], weight: int = 0) -> T:
        """The result of work that begins once the actor is well.

        Lost if the actor dies under it and is being replaced, ActorDied if it has died too often for that.
        """
        self._carry(weight)
        try:
            await self.recovered()
            life = self._life
            try:
                result = await work(self.actor)
            except ActorDied as death:
                self._lost += 1
                if self.well and life == self._life:
                    self._healing = asyncio.create_task(self._heal(death))
                raise Lost from death
            self._deaths.answered()
            return result
        finally:
            self._carry(-weight)

    async def insist(self, work: Callable[[M], Awaitable[T]]) -> T:
        """The result of work that leaves something behind in the actor: done again unless that is still there."""
        while True:
            await self.recovered()
            life = self._life
            try:
                result = await self.attempt(work)
            except Lost:
                continue
            if self.well and life == self._life:
                return result

    async def leave(self, work: Callable[[M], Awaitable[None]]) -> bool:
        """Whether the actor was well and has kept what the work leaves behind in it."""
        life = self._life
        if not self.well:
            return False
        try:
            await self.attempt(work)
        except Lost:
            return False
        return self.well and life == self._life

    def abandon(self) -> None:
        """Replace the actor no more."""
        if self._healing is not None:
            self._healing.cancel()

    def _carry(self, weight: int) -> None:
        self.load += weight
        self.on_load()

    async def _heal(self, death: ActorDied) -> None:
        began, cause = self._clock.now(), death
        while True:
            try:
                pause = self._deaths.pause(self._clock.now(), death)
            except ActorDied as end:
                self._record(self.actor.name, f"not replaced any more; {end}")
                raise
            await self._clock.sleep(pause)
            try:
                await self.actor.revive()
                if self._prepare:
                    await self._prepare()
                break
            except ActorDied as again:
                death = again
            except Exception as error:  # no death, so another life would not help: it is told and goes on up
                self._record(self.actor.name, f"not replaced any more; {error!r} while it was; {cause}")
                raise
        seconds = self._clock.now() - began
        self._record(self.actor.name, f"replaced within {seconds:.1f} s, {self._lost} requests asked again; {cause}")
        self._lost = 0
        self._life += 1
        self._healing = None


class WorkerPool(Generic[M]):
    """Posts that can stand in for each other.

    The least loaded one is found without a look at the others: a heap of loads as they were when they changed, of which
    the outdated ones are thrown away when they come up.
    """

    def __init__(self, posts: Sequence[Supervised[M]]) -> None:
        self.posts = posts
        self._loads = [(0, number) for number in range(len(posts))]
        for number, post in enumerate(posts):
            post.on_load = partial(self._note, number)

    async def anyone(
        self, work: Callable[[M], Awaitable[T]], weight: int, able: Callable[[Any], bool] = lambda post: True
    ) -> T:
        """The result of work by the actor that is well and has the least to do; by another one if it dies. able: says
        of a post whether its actor can do it. Raises what keeps the last one away once none is left.
        """
        while True:
            post = self._least(able)
            last = post.given_up
            try:
                return await post.attempt(work, weight)
            except Lost:
                continue
            except Exception:  # may be what ended this post's healing, which the others can do without
                if last or not post.given_up:
                    raise

    def _least(self, able: Callable[[Any], bool]) -> Supervised[M]:
        """The first of those that are well, able, and have the least load; if none is, of those that may be."""
        passed_over = []
        while self._loads:
            load, number = entry = self._loads[0]
            post = self.posts[number]
            if post.load == load and post.well and able(post):
                break
            heapq.heappop(self._loads)
            if post.load == load:
                passed_over.append(entry)
        found = self._loads[0] if self._loads else min(passed_over, key=lambda entry: self._hope(entry, able))
        for entry in set(passed_over):
            heapq.heappush(self._loads, entry)
        return self.posts[found[1]]

    def _hope(self, entry: tuple[int, int], able: Callable[[Any], bool]) -> tuple[bool, bool, int, int]:
        post = self.posts[entry[1]]
        return (not able(post), post.given_up, *entry)

    def _note(self, number: int) -> None:
        heapq.heappush(self._loads, (self.posts[number].load, number))
        if len(self._loads) > OUTDATED * len(self.posts):
            self._loads = [(post.load, number) for number, post in enumerate(self.posts)]
            heapq.heapify(self._loads)
