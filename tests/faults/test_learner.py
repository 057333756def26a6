"""The learner's process crashes: its successor makes the same weights from the same batches, bit for bit."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from safetensors.torch import load_file

from actors.clock import WallClock
from actors.errors import ActorDied
from actors.messages import AdapterRef, Batch, Group
from actors.runtime.placement import Share
from actors.runtime.remote_actor import RemoteActor
from conf.schema import Config
from conf.settings import changed
from learner.actor import LearnerActor, RemoteLearner

pytestmark = pytest.mark.slow

UPDATES = 5
SAVED = 2
"""Version of the checkpoint; the learner crashes in the update after the next."""


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_restored_learner_repeats_the_uninterrupted_one_bit_for_bit(
    tiny_model: Path, tiny_config: Config, build_group: Callable[..., Group], tmp_path: Path
) -> None:
    tiny_config = changed(tiny_config, {"lora.dropout": 0.1, "algorithm.steps_per_batch": 2})

    def start(name: str) -> tuple[RemoteActor, RemoteLearner]:
        share = Share(threads=1)
        adapters = str(tmp_path / name)
        actor = RemoteActor(
            LearnerActor, name, share, tiny_config, str(tiny_model), share, adapters, asynchronous=False
        )
        return actor, RemoteLearner([actor], WallClock())

    def batch(version: int, incarnation: int) -> Batch:
        adapter = AdapterRef(version, incarnation, "nowhere")
        return Batch(version, tuple(build_group(10 * version + number, adapter=adapter) for number in range(4)))

    async def learn(learner: RemoteLearner, versions: range, incarnation: int) -> None:
        for version in versions:
            await learner.accumulate(batch(version, incarnation))
            await learner.step(version / UPDATES)

    async def uninterrupted(folder: Path) -> None:
        _, learner = start("steady")
        await learn(learner, range(UPDATES), 0)
        await learner.save(str(folder))
        await learner.close()

    async def interrupted(folder: Path, checkpoint: Path) -> None:
        actor, learner = start("frail")
        await learn(learner, range(SAVED), 0)
        await learner.save(str(checkpoint))
        await learn(learner, range(SAVED, SAVED + 1), 0)
        await learner.accumulate(batch(SAVED + 1, 0))
        os.kill(await actor.call("__ray_call__", lambda _: os.getpid()), signal.SIGKILL)
        with pytest.raises(ActorDied):
            await learner.step(0.0)
        await learner.revive()
        await learner.restore(str(checkpoint), 1)
        await learn(learner, range(SAVED, UPDATES), 1)
        await learner.save(str(folder))
        await learner.close()

    folders = [tmp_path / name for name in ("whole", "mended", "checkpoint")]
    for folder in folders:
        folder.mkdir()
    asyncio.run(uninterrupted(folders[0]))
    asyncio.run(interrupted(folders[1], folders[2]))
    for file in ("learner.safetensors", "adapter/adapter_model.safetensors"):
        whole, mended, early = (load_file(folder / file) for folder in folders)
        assert whole.keys() == mended.keys()
        assert all(torch.equal(whole[name], mended[name]) for name in whole)
        assert not all(torch.equal(whole[name], early[name]) for name in whole)
