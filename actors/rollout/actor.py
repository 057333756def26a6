"""The Ray actor of a vLLM engine, and the coordinator's view of it.

A node that does not see the learner's files gets one copy of each adapter through Ray's object store.
"""

import asyncio
import contextlib
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import psutil
import ray

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from actors.models.files import found_here
from actors.protocols import Engine
from actors.rollout.vllm_engine import RolloutEngine
from actors.runtime.placement import Share
from actors.runtime.remote_actor import RemoteActor
from actors.storage.files import lock, private_folder
from actors.storage.folders import discard, new_folder
from actors.storage.layout import ADAPTER, ADAPTERS
from conf.schema import Config

SLOWEST_TOKEN_S = {"cpu": 2.0, "cuda": 0.3}
"""Most seconds per token of one sample while the engine is full: about ten times the need of two busy cores, and five
times the planned seconds on a GPU shared with a learner."""

SLOWEST_ANSWER_S = 120.0
"""Most seconds of a request besides its tokens: compilations on first use."""

Fingerprint = tuple[int, int]
"""Size in bytes and time of change of an adapter's weights: another run may have left a folder of the same name."""

Stored: TypeAlias = "ray.ObjectRef[dict[str, bytes]]"
"""Reference to the contents of an adapter's files, by file name, in Ray's object store."""


def fingerprint(folder: str) -> Fingerprint | None:
    """Return the fingerprint of the adapter in a folder, None if this machine has no such folder."""
    file = Path(folder, WEIGHTS_FILE)
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None


class RolloutActor(RolloutEngine):
    """A RolloutEngine as a Ray actor; asynchronous, so that many groups are in flight at once."""

    def __init__(self, config: Config, model_path: str, share: Share, cache_blocks: int | None = None) -> None:
        share.bind()
        self._copies = private_folder() / "adapters" / config.run.name / str(os.getpid())
        for left in self._copies.parent.glob("[0-9]*"):
            if left.name.isdecimal() and not psutil.pid_exists(int(left.name)):
                discard(left, ADAPTERS)
        super().__init__(config, found_here(model_path, config.model), share, cache_blocks)

    async def load_if_same(self, adapter: AdapterRef, expected: Fingerprint | None) -> bool:
        """Load an adapter from its folder if this node sees that folder as the caller does."""
        if fingerprint(adapter.path) != expected:
            return False
        await self.load(adapter)
        return True

    async def load_copy(self, adapter: AdapterRef, expected: Fingerprint, stored: tuple[Stored]) -> None:
        """Load an adapter from a copy on this node. stored: in a tuple, so that Ray does not fetch it unasked."""
        copy = self._copies / adapter.name
        await asyncio.to_thread(self._copy, copy, expected, *stored)
        await self.load(replace(adapter, path=str(copy)))

    def _copy(self, copy: Path, expected: Fingerprint, stored: Stored) -> None:
        """Link the files of another engine's copy or, as the first engine of this node, write them. The disk holds
        linked files once, until the last folder is gone.
        """
        held = lock(self._copies.parent, wait=True, place="TMPDIR")
        assert held is not None
        try:
            copy.parent.mkdir(exist_ok=True)
            for other in copy.parent.parent.glob(f"[0-9]*/{copy.name}"):
                if fingerprint(str(other)) == expected:
                    with contextlib.suppress(FileNotFoundError), new_folder(copy, ADAPTER) as made:
                        for name in (CONFIG_FILE, WEIGHTS_FILE):  # missing if the other engine has just retired it
                            os.link(other / name, made / name)
                        return
            write_copy(ray.get(stored), copy, expected)
        finally:
            os.close(held)

    async def retire(self, adapter: AdapterRef) -> None:
        await super().retire(adapter)
        discard(self._copies / adapter.name, ADAPTER)

    async def close(self) -> None:
        await super().close()
        discard(self._copies, ADAPTERS)


def write_copy(files: dict[str, bytes], folder: Path, expected: Fingerprint) -> None:
    """Write an adapter's files into a folder with its fingerprint; the folder appears complete or not at all."""
    with new_folder(folder, ADAPTER) as made:
        for name, content in files.items():
            (made / Path(name).name).write_bytes(content)
            os.utime(made / Path(name).name, ns=(expected[1], expected[1]))


class AdapterTransfer:
    """Puts each adapter into the object store once for all nodes, and keeps the last ones there. kept: their number."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._stored: dict[str, Stored] = {}
        self._one_at_a_time = asyncio.Lock()

    async def store(self, adapter: AdapterRef) -> Stored:
        """Return a reference to an adapter's files."""
        async with self._one_at_a_time:
            if adapter.path not in self._stored:
                self._stored[adapter.path] = await asyncio.to_thread(_put, Path(adapter.path))
                for path in list(self._stored)[: -self._kept]:
                    del self._stored[path]
            return self._stored[adapter.path]


def _put(folder: Path) -> Stored:
    return ray.put({file.name: file.read_bytes() for file in sorted(folder.iterdir())})


class RemoteEngine:
    """A RolloutActor as a `RestartableEngine`. A cancelled request is cancelled in the engine too.

    concurrent_samples: samples that the engine decodes at once; others wait for their turn.
    transfer: shared with the other engines of a run.
    device: cpu or cuda.
    """

    def __init__(
        self, actor: RemoteActor, concurrent_samples: int, transfer: AdapterTransfer, device: str = "cpu"
    ) -> None:
        self.name = actor.name
        self._actor = actor
        self._concurrent = concurrent_samples
        self._transfer = transfer
        self._slowest_token_s = SLOWEST_TOKEN_S[device]
        self._samples = 0
        self._cache_blocks: int | None = None
        self.fallbacks: tuple[str, ...] = ()

    async def ready(self) -> None:
        self._cache_blocks = await self._actor.call("cache_blocks")
        self.fallbacks = await self._actor.call("fallbacks")

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        await work(self.name, self)

    async def revive(self) -> None:
        """Start a fresh actor with a KV cache as large as the first one's."""
        self._actor.start(self._cache_blocks)
        await self.ready()

    async def load(self, adapter: AdapterRef) -> None:
        expected = fingerprint(adapter.path)
        if not await self._actor.call("load_if_same", adapter, expected):
            await self._actor.call("load_copy", adapter, expected, (await self._transfer.store(adapter),))

    async def retire(self, adapter: AdapterRef) -> None:
        await self._actor.call("retire", adapter)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        self._samples += sampling.samples
        turns = math.ceil(self._samples / self._concurrent)
        deadline_s = SLOWEST_ANSWER_S + turns * sampling.max_tokens * self._slowest_token_s
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
