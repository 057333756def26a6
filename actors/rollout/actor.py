"""The Ray actor of a vLLM engine."""

import asyncio
import os
from dataclasses import replace

from actors.messages import AdapterRef
from actors.models.files import found_here
from actors.rollout.adapter_transfer import AdapterCopies, Fingerprint, Stored, fingerprint
from actors.rollout.vllm_engine import RolloutEngine
from actors.runtime.placement import Share
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

    async def load_copy(self, adapter: AdapterRef, expected: Fingerprint, stored: tuple[Stored]) -> None:
        """Load an adapter from a copy on this node. stored: in a tuple, so that Ray does not fetch it unasked."""
        copy = await asyncio.to_thread(self._copies.add, adapter.name, expected, *stored)
        await self.load(replace(adapter, path=str(copy)))

    async def retire(self, adapter: AdapterRef) -> None:
        await super().retire(adapter)
        self._copies.drop(adapter.name)

    async def close(self) -> None:
        await super().close()
        self._copies.clear()
