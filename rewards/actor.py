"""The Ray shell around the verifier pool, and many of them as one Verifier."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import cycle

from ray.actor import ActorHandle

from actors.messages import Group
from rewards.pool import VerifierPool
from rewards.recipe import Recipe

GROUPS_AHEAD = 8
"""Enough to keep a worker busy while answers need algebra now and then."""


class RewardActor:
    """A verifier pool in a process of its own; the pool's workers are its children and die with it.

    At most GROUPS_AHEAD groups a worker are judged or queued at a time; the others wait with the caller's request.
    """

    def __init__(self, recipe: Recipe, workers: int) -> None:
        self._pool = VerifierPool(recipe, workers)
        self._room = asyncio.Semaphore(GROUPS_AHEAD * workers)

    async def score(self, group: Group) -> Group:
        async with self._room:
            return await self._pool.score(group)

    async def health(self) -> dict[str, int]:
        return self._pool.health

    async def close(self) -> None:
        await self._pool.close()


class RemoteVerifier:
    """Reward actors as one `actors.protocols.Verifier`; groups go to them in turn."""

    def __init__(self, handles: Sequence[ActorHandle]) -> None:
        self._handles = tuple(handles)
        self._turns = cycle(self._handles)

    async def score(self, group: Group) -> Group:
        return await next(self._turns).score.remote(group)

    async def health(self) -> dict[str, int]:
        """`VerifierPool.health`, added up."""
        total: Counter[str] = Counter()
        for handle in self._handles:
            total.update(await handle.health.remote())
        return dict(total)

    async def close(self) -> None:
        await asyncio.gather(*(handle.close.remote() for handle in self._handles))
