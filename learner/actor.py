"""The Ray shells around the learner: one actor a rank, and all of them as one `Learner`."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from actors.errors import ActorDied, LearnerDied
from actors.messages import AdapterRef, Batch, Group, Inspection, Scores, UpdateStats
from actors.protocols import Clock
from actors.runtime.placement import Share
from actors.runtime.remote_actor import START_S, RemoteActor
from actors.runtime.supervision import RestartLimit
from conf.errors import BadInput
from conf.models import found_here
from conf.schema import Config

PATIENCE = 10.0
PATIENCE_S = 120.0
"""A learner hangs when a call takes so many times its longest so far, and so many seconds more: batches differ."""

LOOPBACK = "127.0.0.1"

DEATH_NOTICE_S = 10.0
"""How long Ray may take to say that a rank died after the others lost their connection to it."""


class LearnerActor:
    """A `LoraLearner` in a process of its own, on its share of the machine. Nothing heavy is imported before `open`."""

    def __init__(
        self, config: Config, model_path: str, share: Share, adapters_folder: str, rank: int = 0, size: int = 1
    ) -> None:
        self._config = config
        self._model_path = model_path
        self._share = share
        self._adapters = adapters_folder
        self._rank = rank
        self._size = size
        self._store: Any = None
        os.environ["DS_ACCELERATOR"] = self._device
        # Micro-batches of many shapes would leave holes in the share that no tensor fits into.
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
        share.bind()

    @property
    def _device(self) -> str:
        return "cuda" if self._share.gpus else "cpu"

    def address(self) -> str:
        """Of this machine, as the others of the cluster reach it."""
        return ray.util.get_node_ip_address()

    def invite(self, host: str) -> int:
        """Wait for the other ranks at an address of this machine; the port."""
        from learner.distributed import invite

        self._store = invite(host)
        return self._store.port

    def open(self, host: str = "", port: int = 0) -> None:
        """Load the model together with the other ranks; host, port: where the first one waits."""
        import torch

        torch.set_num_threads(self._share.threads)
        if self._share.memory:
            torch.cuda.set_per_process_memory_fraction(self._share.memory)
        from learner.distributed import Ranks, accept, speak_through
        from learner.learner import LoraLearner

        run_folder = Path(self._adapters).parent
        if self._rank == 0 and not run_folder.is_dir():
            raise BadInput(
                f"run.folder: the learner's node does not see {run_folder}; start run.py on a node with a card, or name"
                " a folder that all nodes share"
            )
        if self._size > 1:
            speak_through(host if host == LOOPBACK else self.address())
            self._store = self._store or accept(host, port)
        ranks = Ranks(self._rank, self._size, self._store)
        model_path = found_here(self._model_path, self._config.model)
        self._learner = LoraLearner(self._config, model_path, self._adapters, self._device, ranks)

    def publish(self) -> AdapterRef:
        return self._learner.publish()

    def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        return self._learner.publish_synthetic()

    def accumulate(self, batch: Batch) -> None:
        self._learner.accumulate(batch)

    def step(self, progress: float) -> UpdateStats:
        return self._learner.step(progress)

    def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        return self._learner.score(groups)

    def explain(self, groups: tuple[Group, ...]) -> dict[str, tuple[float, ...]]:
        return self._learner.explain(groups)

    def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        return self._learner.inspect(groups)

    def save(self, folder: str) -> None:
        self._learner.save(folder)

    def restore(self, folder: str | None, incarnation: int) -> None:
        self._learner.restore(folder, incarnation)


class RemoteLearner:
    """The `Learner` protocol over LearnerActors, one for each rank, in their order.

    The death of one ends all, since the others may be waiting for it. A call that takes far longer than it ever did
    counts as a death.
    """

    def __init__(self, actors: Sequence[RemoteActor], clock: Clock) -> None:
        self._actors = list(actors)
        self._clock = clock
        self._limit = RestartLimit("learner")
        self._death: LearnerDied | None = None
        self._longest: dict[str, float] = {}
        self._opening = asyncio.ensure_future(self._open())

    async def revive(self) -> None:
        if self._death is not None:
            await self._clock.sleep(self._limit.pause(self._clock.now(), self._death))
        self._death = None
        self._longest = {}
        self._opening.cancel()
        for actor in self._actors:
            actor.start()
        self._opening = asyncio.ensure_future(self._open())

    async def publish(self) -> AdapterRef:
        return await self._all("publish")

    async def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        return await self._first("publish_synthetic")

    async def accumulate(self, batch: Batch) -> None:
        await self._all("accumulate", ray.put(batch))

    async def step(self, progress: float) -> UpdateStats:
        return await self._all("step", progress)

    async def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        return await self._first("score", groups)

    async def explain(self, groups: tuple[Group, ...]) -> dict[str, tuple[float, ...]]:
        return await self._first("explain", groups)

    async def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        return await self._first("inspect", groups)

    async def save(self, folder: str) -> None:
        await self._all("save", folder)

    async def restore(self, folder: str | None, incarnation: int) -> None:
        await self._all("restore", folder, incarnation)

    async def close(self) -> None:
        self._opening.cancel()
        for actor in self._actors:
            actor.kill()

    async def _open(self) -> None:
        """Have the ranks meet, on one machine without a word to the outside, and load the model."""
        if len(self._actors) == 1:
            await self._ask(self._actors, "open")
            return
        addresses = await self._ask(self._actors, "address")
        host = LOOPBACK if len(set(addresses)) == 1 else addresses[0]
        (port,) = await self._ask(self._actors[:1], "invite", host)
        await self._ask(self._actors, "open", host, port)

    async def _first(self, method: str, *arguments: Any) -> Any:
        """What the first rank answers, who alone is asked."""
        await asyncio.shield(self._opening)
        return (await self._ask(self._actors[:1], method, *arguments))[0]

    async def _all(self, method: str, *arguments: Any) -> Any:
        """What the first rank answers, once all have answered."""
        await asyncio.shield(self._opening)
        return (await self._ask(self._actors, method, *arguments))[0]

    async def _ask(self, actors: list[RemoteActor], method: str, *arguments: Any) -> list[Any]:
        """What each of these ranks answers."""
        longest = self._longest.get(method)
        deadline_s = START_S if longest is None else PATIENCE_S + PATIENCE * longest
        began = self._clock.now()
        calls = [asyncio.ensure_future(actor.call(method, *arguments, deadline_s=deadline_s)) for actor in actors]
        try:
            await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
            if _errors(calls):
                _, waiting = await asyncio.wait(calls, timeout=DEATH_NOTICE_S)
                error = min(_errors(calls), key=lambda error: not isinstance(error, ActorDied))
                if waiting or isinstance(error, ActorDied):
                    for actor in self._actors:
                        actor.kill("another rank of the learner failed")
                if isinstance(error, ActorDied):
                    self._death = LearnerDied(str(error))
                    raise self._death from error
                raise error
        finally:
            for call in calls:
                call.cancel()
        self._longest[method] = max(longest or 0.0, self._clock.now() - began)
        self._limit.answered()
        return [call.result() for call in calls]


def _errors(calls: Sequence["asyncio.Future[Any]"]) -> list[BaseException]:
    return [error for call in calls if call.done() and (error := call.exception())]
