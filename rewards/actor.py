"""The Ray shell around the verifier pool, and many of them as one Verifier."""

import asyncio
from collections.abc import Sequence
from itertools import cycle

from ray.actor import ActorHandle

from actors.messages import Group
from conf.schema import RewardConfig
from rewards.pool import VerifierPool
from rewards.recipe import LengthPenalty


class RewardActor:
    """A verifier pool in a process of its own; the pool's workers are its children and die with it."""

    def __init__(self, config: RewardConfig, workers: int, penalty: LengthPenalty | None = None) -> None:
        self._pool = VerifierPool(config, workers, penalty)

    async def score(self, group: Group) -> Group:
        return await self._pool.score(group)

    async def close(self) -> None:
        await self._pool.close()


class RemoteVerifier:
    """Reward actors as one `actors.protocols.Verifier`; groups go to them in turn."""

    def __init__(self, handles: Sequence[ActorHandle]) -> None:
        self._handles = tuple(handles)
        self._turns = cycle(self._handles)

    async def score(self, group: Group) -> Group:
        return await next(self._turns).score.remote(group)

    async def close(self) -> None:
        await asyncio.gather(*(handle.close.remote() for handle in self._handles))
