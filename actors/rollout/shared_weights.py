"""The base model once on a GPU: an actor holds it in vLLM's layout, and engine and learner map its memory.

Only this module uses private parts of vLLM 0.32's weight cache: the public command, `vllm preload`, does not end with
a run, and gives handles to engines only.
"""

import asyncio
import os
import tempfile
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from microbudget_rl.actors.errors import ENDED_WITH_WEIGHTS, ActorDied
from microbudget_rl.actors.models.files import found_here
from microbudget_rl.actors.protocols import Clock
from microbudget_rl.actors.rollout.vllm_settings import engine_settings, set_environment
from microbudget_rl.actors.runtime.placement import Mapped, Placement, Share
from microbudget_rl.actors.runtime.process import ALLOCATOR, end_without_gpu
from microbudget_rl.actors.runtime.ray_session import root_of
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.actors.runtime.supervision import Lost, Record, Supervised, WorkerPool
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config

if TYPE_CHECKING:
    import torch
    from vllm.model_executor.model_loader.weight_cache.daemon import WeightCacheDaemon

DAEMON_SOCKET = f"vllm_weight_cache_{'0' * 32}.sock"
"""A name as long as that of the daemon's socket, which has an MD5 digest."""


class WeightsActor:
    """Holds the base model on its share of a GPU, and serves it to engines at a socket in a folder."""

    def __init__(self, config: Config, model_path: str, share: Share, folder: str) -> None:
        share.bind()
        set_environment(share, config.rollout.kv_cache_gib)
        for name in ALLOCATOR:
            os.environ.pop(name, None)  # containers forbid the system call by which expandable segments are mapped
        import torch

        self._daemon = make_daemon(config, found_here(model_path, config.model), share, folder)
        self._daemon.load_model()
        self._fraction = torch.cuda.memory_allocated() / torch.cuda.get_device_properties(0).total_memory

    async def alive(self) -> None:
        end_without_gpu()

    async def fraction(self) -> float:
        """Return the fraction of the GPU's memory that the weights take."""
        return self._fraction

    async def handles(self) -> bytes:
        end_without_gpu()
        assert self._daemon.model is not None
        return handles(self._daemon.model)

    async def serve(self) -> None:
        """Serve engines until this process ends."""
        try:
            await asyncio.to_thread(self._daemon.serve_forever)
        except Exception as error:  # vLLM's daemon may raise anything; the holder is then replaced like a dead one
            raise ActorDied(f"no engine can map its weights: {error!r}") from error


def make_daemon(config: Config, model_path: str, share: Share, folder: str) -> "WeightCacheDaemon":
    """Return vLLM's daemon for the model of a run's engine, before it has loaded the model."""
    from vllm import EngineArgs
    from vllm.model_executor.model_loader.weight_cache.daemon import WeightCacheDaemon
    from vllm.utils.network_utils import get_file_store_init_method

    settings = EngineArgs(**engine_settings(config, model_path, share, None)).create_engine_config()
    return WeightCacheDaemon(settings, 0, 0, get_file_store_init_method(), socket_dir=folder)


def handles(model: "torch.nn.Module") -> bytes:
    """Return a vLLM model's tensors by name, pickled for one other process, which maps their memory.

    torch counts the mappings of a GPU's memory: every process needs handles of its own.
    """
    tensors = model.named_parameters(remove_duplicate=False)
    return bytes(ForkingPickler.dumps({name: tensor.detach() for name, tensor in tensors}))


class SharedWeights(Supervised[RemoteActor]):
    """The base model on a GPU. When its process ends, those that map its memory are killed, and all start again.

    users: the actors that map it.
    """

    def __init__(self, config: Config, model_path: str, share: Share, clock: Clock, record: Record) -> None:
        root = root_of(f"w12345678/{DAEMON_SOCKET}")  # whose path is short enough wherever temporary files are
        self._folder = tempfile.TemporaryDirectory(prefix="w", dir=root, ignore_cleanup_errors=True)
        actor = RemoteActor(WeightsActor, "weights", share, config, model_path, share, self._folder.name)
        super().__init__(actor, clock, record)
        self.users: list[RemoteActor] = []
        self._serving = asyncio.create_task(self._serve())

    async def mapped_by(self, placement: Placement) -> Placement:
        """Return a placement whose engines map the weights, once loaded. Raises BadInput if no first start succeeds."""
        try:
            mapped = Mapped(self._folder.name, await self._ask("fraction"))
        except ActorDied as death:
            raise BadInput(f"model.shared_weights: {death}; give model.shared_weights=off") from death
        return replace(placement, rollouts=tuple(replace(share, mapped=mapped) for share in placement.rollouts))

    async def handles(self) -> bytes:
        """Return handles of the weights for one process."""
        return bytes(await self._ask("handles"))

    def check(self) -> None:
        """Raise the error after which the process is not started again."""
        if self._serving.done():
            self._serving.result()

    async def close(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        if self.restart is not None:
            self.restart.cancel()
        self.actor.kill()
        self._folder.cleanup()

    async def _ask(self, method: str) -> Any:
        return await WorkerPool([self]).run(lambda weights: weights.call(method), 0)

    async def _serve(self) -> None:
        while True:
            try:
                await self.attempt(lambda weights: weights.call("serve"))
            except Lost:
                for user in self.users:
                    user.kill(ENDED_WITH_WEIGHTS)
                await self.recovered()
