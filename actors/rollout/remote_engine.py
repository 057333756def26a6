"""The coordinator's view of an engine that is a Ray actor."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Engine
from actors.rollout.adapter_transfer import AdapterTransfer, fingerprint
from actors.runtime.remote_actor import ActorProxy, RemoteActor

SLOWEST_TOKEN_S = {"cpu": 2.0, "cuda": 0.3}
"""Most seconds per token of one sample while the engine is full: about ten times the need of two busy cores, and five
times the planned seconds on a GPU shared with a learner."""

SLOWEST_ANSWER_S = 120.0
"""Most seconds of a request besides its tokens: compilations on first use."""


class RemoteEngine(ActorProxy):
    """A RolloutActor as a `RestartableEngine`. A cancelled request is cancelled in the engine too.

    concurrent_samples: samples that the engine decodes at once; others wait for their turn.
    transfer: shared with the other engines of a run.
    device: cpu or cuda.
    """

    def __init__(
        self, actor: RemoteActor, concurrent_samples: int, transfer: AdapterTransfer, device: str = "cpu"
    ) -> None:
        super().__init__(actor)
        self._concurrent = concurrent_samples
        self._transfer = transfer
        self._slowest_token_s = SLOWEST_TOKEN_S[device]
        self._samples = Counter[int]()  # under way and waiting, by their limit of tokens
        self._cache_blocks: int | None = None

    async def ready(self) -> None:
        self._cache_blocks = await self._actor.call("cache_blocks")

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
        self._samples[sampling.max_tokens] += sampling.samples
        turns = math.ceil(self._samples.total() / self._concurrent)
        longest = max(limit for limit, samples in self._samples.items() if samples)
        deadline_s = SLOWEST_ANSWER_S + turns * longest * self._slowest_token_s
        try:
            return await self._actor.call("generate", index, problem, adapter, sampling, deadline_s=deadline_s)
        finally:
            self._samples[sampling.max_tokens] -= sampling.samples

    async def generate_on_each(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        return (await self.generate(index, problem, adapter, sampling),)
