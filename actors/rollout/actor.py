"""The Ray actor of a vLLM engine, and the coordinator's view of it. Another node gets copies of adapters."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import ray

from microbudget_rl.actors.messages import AdapterRef, Group, Request
from microbudget_rl.actors.models.adapters import ADAPTER_FILES, WEIGHTS_FILE
from microbudget_rl.actors.models.files import found_here
from microbudget_rl.actors.protocols import Engine
from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.actors.storage.files import private_folder
from microbudget_rl.actors.storage.folders import delete, mark, new_folder
from microbudget_rl.conf.schema import Config

SLOWEST_ANSWER_S, SLOWEST_TOKEN_S, SLOWEST_GPU_TOKEN_S = 120.0, 2.0, 0.3
"""Most seconds of a request besides its tokens, for compilations on first use, and per token of one sample while the
engine is full, on a CPU and on a GPU: about ten times the need of two busy cores, and five times the planned seconds on
a GPU shared with a learner."""

FULL = 64
"""Most samples that a deadline counts on to be decoded at once, since the KV cache may hold no more long ones."""

Fingerprint = tuple[int, int]
"""Size in bytes and time of change of an adapter's weights: another run may have left a folder of the same name."""

Stored: TypeAlias = "ray.ObjectRef[dict[str, bytes]]"
"""Reference to the contents of an adapter's files, by file name, in Ray's object store."""


def fingerprint(folder: str | Path) -> Fingerprint | None:
    """Return the fingerprint of the adapter in a folder, None if this machine has no such folder."""
    file = Path(folder, WEIGHTS_FILE)
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None


class AdapterTransfer:
    """Puts each adapter into the object store once for all nodes, and keeps the last ones there. most: their number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stored: dict[str, Stored] = {}
        self._one_at_a_time = asyncio.Lock()

    async def store(self, adapter: AdapterRef) -> Stored:
        """Return a reference to an adapter's files."""
        async with self._one_at_a_time:
            if adapter.path not in self._stored:
                self._stored[adapter.path] = await asyncio.to_thread(_put, Path(adapter.path))
                for path in list(self._stored)[: -self._most]:
                    del self._stored[path]
            return self._stored[adapter.path]


def _put(folder: Path) -> Stored:
    return ray.put({file.name: file.read_bytes() for file in sorted(folder.iterdir())})


@dataclass
class AdapterCopies:
    """An engine's copies of adapters on its node. folder: named by its process, in one for all engines of a run."""

    folder: Path

    def clear_left(self) -> None:
        """Delete the folders of processes that have ended."""
        for left in self.folder.parent.glob("[0-9]*"):
            if left.name.isdecimal() and not psutil.pid_exists(int(left.name)):
                delete(left)

    def add(self, name: str, stored: Stored) -> Path:
        """Write an adapter's files into a new folder, and return it."""
        copy = self.folder / name
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, parents=True)
            mark(self.folder, "temporary")
        delete(copy, ADAPTER_FILES)
        with new_folder(copy) as made:
            for file, content in ray.get(stored).items():
                (made / Path(file).name).write_bytes(content)
        return copy

    def drop(self, name: str) -> None:
        delete(self.folder / name, ADAPTER_FILES)

    def clear(self) -> None:
        delete(self.folder)


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

    transfer: shared with the other engines of a run. concurrent_samples: those that the engine decodes at once.
    """

    def __init__(self, transfer: AdapterTransfer, *actor: Any, concurrent_samples: int = 1, **options: Any) -> None:
        """actor, options: arguments of RemoteActor."""
        self._transfer, self._at_once = transfer, min(concurrent_samples, FULL)
        self._tokens = 0  # of all samples under way, at most
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

    async def generate(self, request: Request) -> Group:
        """Kill the engine if it takes longer than it may need for this request and all that are under way."""
        longest = request.sampling.max_tokens
        tokens = request.sampling.samples * longest
        self._tokens += tokens
        token_s = SLOWEST_GPU_TOKEN_S if self._share.gpus else SLOWEST_TOKEN_S
        deadline_s = SLOWEST_ANSWER_S + token_s * (longest + self._tokens / self._at_once)
        try:
            return await self.call("generate", request, deadline_s=deadline_s)
        finally:
            self._tokens -= tokens

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        return (await self.generate(request),)
