"""The Ray actor of a vLLM engine, and the coordinator's view of it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.models.files import found_here
from actors.protocols import Engine
from actors.rollout.adapter_transfer import AdapterCopies, AdapterTransfer, Fingerprint, Stored, fingerprint
from actors.rollout.vllm_engine import RolloutEngine
from actors.runtime.placement import Share
from actors.runtime.remote_actor import RemoteActor
from actors.storage.files import private_folder
from conf.schema import Config


class RolloutActor(RolloutEngine):
    """A RolloutEngine as a Ray actor; asynchronous, so that many groups are in flight at once."""

    def __init__(self, config: Config, model_path: str, share: Share, cache_blocks: int | None = None) -> None:
        share.bind()
        self._copies = AdapterCopies(private_folder() / "adapters" / config.run.name / str(os.getpid()))
        self._copies.clear_left()
        super().__init__(config, found_here(model_path, config.model), share, cache_blocks)

    async def load_if_same(self, adapter: AdapterRef, expected: Fingerprint | None) -> bool:
        """Load an adapter from its folder if this node sees that folder as the caller does."""
        if fingerprint(adapter.path) != expected:
            return False
        await self.load(adapter)
        return True

    async def load_copy(self, adapter: AdapterRef, stored: tuple[Stored]) -> None:
        """Load an adapter from a copy on this node. stored: in a tuple, so that Ray does not fetch it unasked."""
        copy = await asyncio.to_thread(self._copies.add, adapter.name, *stored)
        await self.load(replace(adapter, path=str(copy)))

    async def retire(self, adapter: AdapterRef) -> None:
        await super().retire(adapter)
        self._copies.drop(adapter.name)

    async def close(self) -> None:
        await super().close()
        self._copies.clear()


class RemoteEngine(RemoteActor):
    """A RolloutActor as a `RestartableEngine`. A cancelled request is cancelled in the engine too.

    transfer: shared with the other engines of a run.
    """

    def __init__(self, transfer: AdapterTransfer, *actor: Any, **options: Any) -> None:
        """actor, options: arguments of RemoteActor."""
        self._transfer = transfer
        self._cache_blocks: int | None = None
        super().__init__(*actor, **options)

    async def ready(self) -> None:
        self._cache_blocks = await self.call("cache_blocks")

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        await work(self.name, self)

    async def revive(self) -> None:
        """Start a fresh actor with the first one's KV cache: beside a learner at work, free memory says little."""
        self.start(self._cache_blocks)
        await self.ready()

    async def load(self, adapter: AdapterRef) -> None:
        if not await self.call("load_if_same", adapter, fingerprint(adapter.path)):
            await self.call("load_copy", adapter, (await self._transfer.store(adapter),))

    async def retire(self, adapter: AdapterRef) -> None:
        await self.call("retire", adapter)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        return await self.call("generate", index, problem, adapter, sampling)

    async def generate_on_each(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        return (await self.generate(index, problem, adapter, sampling),)
