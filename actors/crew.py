"""Actors that may die, and the work that goes on when they do."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from actors.deaths import Deaths
from actors.protocols import ActorDied, Clock


class Mortal(Protocol):
    """An actor whose calls raise ActorDied once its process is gone."""

    name: str

    async def revive(self) -> None:
        """Put a fresh process in its place and return once that takes calls; ActorDied if it dies of it."""
        ...


M = TypeVar("M", bound=Mortal)
T = TypeVar("T")

OUTDATED = 8
"""Entries of a crew's heap for each post, at most: most are outdated then, and it is made anew."""

Record = Callable[[str, str], None]
"""Takes an actor's name, and what became of it in one sentence."""


class Lost(Exception):
    """A request that died with its actor."""


class Post(Generic[M]):
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

    async def attempt(self, work: Callable[[M], Awaitable[T]], weight: int = 0) -> T:
        """The result of work that begins once the actor is well.

        Lost if the actor dies under it and is being replaced, ActorDied if it has died too often for that.
        """
        self._carry(weight)
        try:
            await self._healed()
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
            await self._healed()
            life = self._life
            try:
                result = await self.attempt(work)
            except Lost:
                continue
            if self.well and life == self._life:
                return result

    def abandon(self) -> None:
        """Replace the actor no more."""
        if self._healing is not None:
            self._healing.cancel()

    def _carry(self, weight: int) -> None:
        self.load += weight
        self.on_load()

    async def _healed(self) -> None:
        if self._healing is not None:
            await asyncio.shield(self._healing)

    async def _heal(self, death: ActorDied) -> None:
        began, cause = self._clock.now(), death
        while True:
            await self._clock.sleep(self._deaths.pause(self._clock.now(), death))
            try:
                await self.actor.revive()
                if self._prepare:
                    await self._prepare()
                break
            except ActorDied as again:
                death = again
        seconds = self._clock.now() - began
        self._record(self.actor.name, f"replaced within {seconds:.1f} s, {self._lost} requests asked again; {cause}")
        self._lost = 0
        self._life += 1
        self._healing = None


class Crew(Generic[M]):
    """Posts that can stand in for each other.

    The least loaded one is found without a look at the others: a heap of loads as they were when they changed, of which
    the outdated ones are thrown away when they come up.
    """

    def __init__(self, posts: Sequence[Post[M]]) -> None:
        self.posts = posts
        self._loads = [(0, number) for number in range(len(posts))]
        for number, post in enumerate(posts):
            post.on_load = partial(self._note, number)

    async def anyone(self, work: Callable[[M], Awaitable[T]], weight: int) -> T:
        """The result of work by the actor that is well and has the least to do; by another one if it dies."""
        while True:
            try:
                return await self._least().attempt(work, weight)
            except Lost:
                continue

    def _least(self) -> Post[M]:
        """The first of those that are well and have the least load; if none is well, of all."""
        passed_over = []
        while self._loads:
            load, number = entry = self._loads[0]
            post = self.posts[number]
            if post.load == load and post.well:
                break
            heapq.heappop(self._loads)
            if post.load == load:
                passed_over.append(entry)
        found = self._loads[0] if self._loads else min(passed_over)
        for entry in set(passed_over):
            heapq.heappush(self._loads, entry)
        return self.posts[found[1]]

    def _note(self, number: int) -> None:
        heapq.heappush(self._loads, (self.posts[number].load, number))
        if len(self._loads) > OUTDATED * len(self.posts):
            self._loads = [(post.load, number) for number, post in enumerate(self.posts)]
            heapq.heapify(self._loads)
