"""A vLLM engine in a process of its own, and that process as the coordinator sees it."""

import asyncio
import math
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Engine
from actors.rollout.adapter_transfer import AdapterTransfer, Stamp, stamp, unpack
from actors.rollout.engine import RolloutEngine
from actors.rollout.shared_memory import delete_orphans, note
from actors.runtime.placement import Share
from actors.runtime.remote_actor import RemoteActor, session_logs
from conf.models import found_here
from conf.schema import Config

SLOWEST_TOKEN_S = 2.0
"""Seconds that a token of one sample may take while the engine is full: about ten times what two busy cores need."""

SLOWEST_ANSWER_S = 120.0
"""Seconds that a request may take besides its tokens: compilations on first use."""


class RolloutActor:
    """Ray shell of a RolloutEngine; asynchronous, so that many groups are in flight at once."""

    def __init__(self, config: Config, model_path: str, share: Share, cache_bytes: int | None = None) -> None:
        share.bind()
        self._share = share
        session = session_logs().parent
        delete_orphans(session)
        self._copies = Path(tempfile.gettempdir(), "microbudget-rl", config.run.name, str(os.getpid()))
        for left in self._copies.parent.glob("[0-9]*"):
            if not psutil.pid_exists(int(left.name)):
                shutil.rmtree(left, ignore_errors=True)
        self._engine = RolloutEngine(config, found_here(model_path, config.model), share, cache_bytes)
        note(session, os.getpid(), self._engine.segments)

    async def alive(self) -> None:
        await self._engine.alive()

    async def cache_bytes(self) -> int:
        return self._engine.cache_bytes

    async def load(self, adapter: AdapterRef, known: Stamp | None, files: dict[str, bytes] | None = None) -> bool:
        """Load an adapter from its folder or, on a node that does not see that as it is known, from a copy of its
        files. False if it has neither.
        """
        if files is not None:
            adapter = replace(adapter, path=str(self._copies / adapter.name))
            await asyncio.to_thread(unpack, files, Path(adapter.path))
        elif stamp(adapter.path) != known:
            return False
        await self._engine.load(adapter)
        return True

    async def retire(self, adapter: AdapterRef) -> None:
        await self._engine.retire(adapter)
        shutil.rmtree(self._copies / adapter.name, ignore_errors=True)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        return await self._engine.generate(index, problem, adapter, sampling)

    async def close(self) -> None:
        self._engine.close()
        shutil.rmtree(self._copies, ignore_errors=True)


class RemoteEngine:
    """A RolloutActor as a `RestartableEngine` of the pool. A cancelled request is cancelled in the engine too, and a
    successor's KV cache is as large as the first one's.

    concurrent_samples: that the engine decodes at once; those beyond wait for their turn. parcels: what engines on
    other nodes share.
    """

    def __init__(self, actor: RemoteActor, concurrent_samples: int, parcels: AdapterTransfer | None = None) -> None:
        self.name = actor.name
        self._actor = actor
        self._concurrent = concurrent_samples
        self._parcels = parcels or AdapterTransfer()
        self._samples = 0
        self._cache_bytes: int | None = None

    async def ready(self) -> None:
        self._cache_bytes = await self._actor.call("cache_bytes")

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        await work(self.name, self)

    async def revive(self) -> None:
        self._actor.start(self._cache_bytes)
        await self.ready()

    async def load(self, adapter: AdapterRef) -> None:
        known = stamp(adapter.path)
        if not await self._actor.call("load", adapter, known):
            await self._actor.call("load", adapter, known, self._parcels.of(adapter))

    async def retire(self, adapter: AdapterRef) -> None:
        await self._actor.call("retire", adapter)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        self._samples += sampling.samples
        turns = math.ceil(self._samples / self._concurrent)
        deadline_s = SLOWEST_ANSWER_S + turns * sampling.max_tokens * SLOWEST_TOKEN_S
        try:
            return await self._actor.call("generate", index, problem, adapter, sampling, deadline_s=deadline_s)
        finally:
            self._samples -= sampling.samples

    async def probe(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        return (await self.generate(index, problem, adapter, sampling),)

    async def close(self) -> None:
        await self._actor.call("close")
