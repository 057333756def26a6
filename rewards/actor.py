"""The Ray actor around the verifier pool, and several of them as one Verifier."""

import asyncio
from collections.abc import Sequence

from microbudget_rl.actors.messages import Group
from microbudget_rl.actors.protocols import Clock
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.actors.runtime.supervision import Record, Supervised, WorkerPool
from microbudget_rl.rewards.killable_worker import ATTEMPTS, CLOCK_FACTOR
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.weighted_sum import RewardFunction

GROUPS_AHEAD = 8
"""Groups per worker that an actor accepts at a time: enough to keep workers busy when some answers need algebra."""

RESPAWN_S = 10.0
"""Seconds a sample may take beyond its calls: a new worker starts in a fraction of a second."""


class RewardActor:
    """A verifier pool in a process of its own. It takes GROUPS_AHEAD groups per worker; other requests wait."""

    def __init__(self, reward: RewardFunction, workers: int) -> None:
        self._pool = VerifierPool(reward, workers)
        self._capacity = asyncio.Semaphore(GROUPS_AHEAD * workers)

    async def alive(self) -> None:
        """Return, which shows that the process answers."""

    async def score(self, group: Group) -> Group:
        async with self._capacity:
            return await self._pool.score(group)

    async def close(self) -> None:
        await self._pool.close()


class RemoteRewardActor(RemoteActor):
    """The coordinator's view of a RewardActor.

    It counts as hanging when a group takes longer than all its samples may take: a verification and a call of each of
    the user's functions, which may wait without using the CPU.
    """

    def __init__(self, reward: RewardFunction, workers: int, number: int = 0, node: str = "") -> None:
        super().__init__(RewardActor, f"reward-{number}", Share(node=node), reward, workers)
        config = reward.config
        turn_s = min(workers, config.remote.concurrency) * 60 / config.remote.per_minute
        calls = 1 + len(config.custom)
        remote = sum(part.network for part in config.custom)
        remote_s = remote * ATTEMPTS * (config.remote.deadline_s + turn_s)
        self._deadline_s = calls * ATTEMPTS * CLOCK_FACTOR * config.deadline_s + remote_s + RESPAWN_S
        self._answers = 0

    async def score(self, group: Group) -> Group:
        self._answers += len(group.samples)
        try:
            return await self.call("score", group, deadline_s=self._answers * self._deadline_s)
        finally:
            self._answers -= len(group.samples)


class RemoteVerifier:
    """Reward actors as one Verifier. A group goes to the least busy one, and again to another if that crashes."""

    def __init__(self, actors: Sequence[RemoteRewardActor], clock: Clock, record: Record) -> None:
        self._pool = WorkerPool([Supervised(actor, clock, record) for actor in actors])

    async def score(self, group: Group) -> Group:
        return await self._pool.run(lambda actor: actor.score(group), len(group.samples))

    async def close(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self._pool.workers))
