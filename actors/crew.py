"""Actors that may die, and the work that goes on when they do."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
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

Record = Callable[[str, str], None]
"""Takes an actor's name, and what became of it in one sentence."""


class Lost(Exception):
    """A request that died with its actor."""


class Post(Generic[M]):
    """One actor's place, whoever holds it. load: weight of the work that it has.

    prepare: brings a revived actor to where its predecessor was.
    """

    def __init__(
        self, actor: M, clock: Clock, record: Record, prepare: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.actor = actor
        self.load = 0
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
        """Whether the actor has died too often to be replaced."""
        return self._healing is not None and self._healing.done()

    async def recovered(self) -> None:
        """Return once the actor is well; ActorDied if it has died too often for that."""
        if self._healing is not None:
            await asyncio.shield(self._healing)

    async def attempt(self, work: Callable[[M], Awaitable[T]], weight: int = 0) -> T:
        """The result of work that begins once the actor is well.

        Lost if the actor dies under it and is being replaced, ActorDied if it has died too often for that.
        """
        self.load += weight
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
            self.load -= weight

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
        seconds = self._clock.now() - began
        self._record(self.actor.name, f"replaced within {seconds:.1f} s, {self._lost} requests asked again; {cause}")
        self._lost = 0
        self._life += 1
        self._healing = None


async def anyone(posts: Sequence[Post[M]], work: Callable[[M], Awaitable[T]], weight: int) -> T:
    """The result of work by the actor that is well and has the least to do; by another one if it dies."""
    while True:
        post = min(posts, key=lambda post: (post.given_up, not post.well, post.load))
        try:
            return await post.attempt(work, weight)
        except Lost:
            continue
