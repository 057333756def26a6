"""The Ray shell around the learner."""

import os
from typing import Any

import ray

from actors.messages import AdapterRef, Batch, Group, Scores, UpdateStats
from actors.placement import Share
from conf.schema import Config


class LearnerActor:
    """A `LoraLearner` in a process of its own, on its share of the machine. Nothing heavy is imported before that."""

    def __init__(self, config: Config, model_path: str, share: Share, adapters_folder: str) -> None:
        device = "cuda" if share.gpus else "cpu"
        os.environ["DS_ACCELERATOR"] = device
        share.bind()
        import torch

        torch.set_num_threads(share.threads)
        if share.memory:
            torch.cuda.set_per_process_memory_fraction(share.memory)
        from learner.engine import LoraLearner

        self._learner = LoraLearner(config, model_path, adapters_folder, device)

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
    """The `Learner` protocol over a LearnerActor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def revive(self) -> None:
        raise NotImplementedError

    async def publish(self) -> AdapterRef:
        return await self._actor.publish.remote()

    async def accumulate(self, batch: Batch) -> None:
        await self._actor.accumulate.remote(batch)

    async def step(self, progress: float) -> UpdateStats:
        return await self._actor.step.remote(progress)

    async def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        return await self._actor.score.remote(groups)

    async def save(self, folder: str) -> None:
        await self._actor.save.remote(folder)

    async def restore(self, folder: str | None, incarnation: int) -> None:
        await self._actor.restore.remote(folder, incarnation)

    async def close(self) -> None:
        ray.kill(self._actor)
