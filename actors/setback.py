"""Why a run goes back to a checkpoint."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from actors.messages import AdapterRef, Batch, Group, Inspection, Scores, UpdateStats
from actors.protocols import ActorDied, Learner

T = TypeVar("T")


class LearnerDied(Exception):
    """The learner's process is gone, and with it the weights since the last checkpoint. The text says why."""


@dataclass(frozen=True)
class Setback:
    """What ends an incarnation. died: the learner did. trusted: version of the checkpoint to go back to."""

    trusted: int
    died: bool = False


class MortalLearner:
    """A Learner whose death has an exception of its own: a run survives it, but not that of an engine, which has
    healed itself as often as it could.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    async def revive(self) -> None:
        await self._learner.revive()

    async def widen(self, whole: bool) -> None:
        await _told(self._learner.widen(whole))

    async def publish(self) -> AdapterRef:
        return await _told(self._learner.publish())

    async def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        return await _told(self._learner.publish_synthetic())

    async def accumulate(self, batch: Batch) -> None:
        await _told(self._learner.accumulate(batch))

    async def step(self, progress: float) -> UpdateStats:
        return await _told(self._learner.step(progress))

    async def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        return await _told(self._learner.score(groups))

    async def explain(self, groups: tuple[Group, ...]) -> dict[str, tuple[float, ...]]:
        return await _told(self._learner.explain(groups))

    async def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        return await _told(self._learner.inspect(groups))

    async def save(self, folder: str) -> None:
        await _told(self._learner.save(folder))

    async def restore(self, folder: str | None, incarnation: int) -> None:
        await _told(self._learner.restore(folder, incarnation))

    async def close(self) -> None:
        await self._learner.close()


async def _told(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except ActorDied as death:
        raise LearnerDied(str(death)) from death
