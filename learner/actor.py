"""The Ray shell around the learner."""

import os
from typing import Any

from actors.deaths import Deaths
from actors.messages import AdapterRef, Batch, Group, Scores, UpdateStats
from actors.placement import Share
from actors.protocols import ActorDied, Clock
from actors.remote import START_S, RemoteActor
from conf.schema import Config

PATIENCE = 10.0
PATIENCE_S = 120.0
"""A learner hangs when a call takes so many times its longest so far, and so many seconds more: batches differ."""


class LearnerActor:
    """A `LoraLearner` in a process of its own, on its share of the machine. Nothing heavy is imported before that."""

    def __init__(self, config: Config, model_path: str, share: Share, adapters_folder: str) -> None:
        device = "cuda" if share.gpus else "cpu"
        os.environ["DS_ACCELERATOR"] = device
        share.bind()
        self._share = share
        import torch

        torch.set_num_threads(share.threads)
        if share.memory:
            torch.cuda.set_per_process_memory_fraction(share.memory)
        from learner.engine import LoraLearner

        self._learner = LoraLearner(config, model_path, adapters_folder, device)

    def widen(self, whole: bool) -> None:
        if self._share.whole:
            import torch

            self._share.bind(whole)
            torch.set_num_threads(len(self._share.whole if whole else self._share.cores))

    def publish(self) -> AdapterRef:
        return self._learner.publish()

    def accumulate(self, batch: Batch) -> None:
        self._learner.accumulate(batch)

    def step(self, progress: float) -> UpdateStats:
        return self._learner.step(progress)

    def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        return self._learner.score(groups)

    def save(self, folder: str) -> None:
        self._learner.save(folder)

    def restore(self, folder: str | None, incarnation: int) -> None:
        self._learner.restore(folder, incarnation)


class RemoteLearner:
    """The `Learner` protocol over a LearnerActor; a call that takes far longer than it ever did counts as a death."""

    def __init__(self, actor: RemoteActor, clock: Clock) -> None:
        self._actor = actor
        self._clock = clock
        self._deaths = Deaths(actor.name)
        self._death: ActorDied | None = None
        self._longest: dict[str, float] = {}

    async def revive(self) -> None:
        if self._death is not None:
            await self._clock.sleep(self._deaths.pause(self._clock.now(), self._death))
        self._death = None
        self._longest = {}
        self._actor.start()

    async def widen(self, whole: bool) -> None:
        await self._ask("widen", whole)

    async def publish(self) -> AdapterRef:
        return await self._ask("publish")

    async def accumulate(self, batch: Batch) -> None:
        await self._ask("accumulate", batch)

    async def step(self, progress: float) -> UpdateStats:
        return await self._ask("step", progress)

    async def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        return await self._ask("score", groups)

    async def save(self, folder: str) -> None:
        await self._ask("save", folder)

    async def restore(self, folder: str | None, incarnation: int) -> None:
        await self._ask("restore", folder, incarnation)

    async def close(self) -> None:
        self._actor.kill()

    async def _ask(self, method: str, *arguments: Any) -> Any:
        longest = self._longest.get(method)
        deadline_s = START_S if longest is None else PATIENCE_S + PATIENCE * longest
        began = self._clock.now()
        try:
            answer = await self._actor.call(method, *arguments, deadline_s=deadline_s)
        except ActorDied as death:
            self._death = death
            raise
        self._longest[method] = max(longest or 0.0, self._clock.now() - began)
        self._deaths.answered()
        return answer
