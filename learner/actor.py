"""The learner in Ray: one actor per process, and all of them as one `Learner`."""

import asyncio
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from microbudget_rl.actors.errors import ActorDied, Halted, LearnerDied
from microbudget_rl.actors.messages import Batch
from microbudget_rl.actors.models.files import found_here
from microbudget_rl.actors.protocols import Clock, Learner
from microbudget_rl.actors.rollout.shared_weights import SharedWeights
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.runtime.process import end_without_gpu, expand_segments
from microbudget_rl.actors.runtime.remote_actor import HEARTBEAT_S, START_S, RemoteActor
from microbudget_rl.actors.runtime.supervision import Record, RestartLimit
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config

if TYPE_CHECKING:
    from microbudget_rl.learner.learner import LoraLearner

HANG_FACTOR = 10.0
HANG_S = 120.0
"""Factor of the longest call so far, and seconds added, after which a call counts as hanging: batches differ."""

UPDATES = ("accumulate", "step")
"""Calls that take almost no time if no sample has a gradient; such a call does not predict the next."""

LOOPBACK = "127.0.0.1"

LONGEST_WARNING = 300
"""Most characters of a learner's warning: a compiler's output is long."""

CRASH_NOTICE_S = 10.0
"""Seconds Ray may take to report a crashed process after the others have lost their connection to it."""


def guarded(method: str) -> Callable[..., Any]:
    """Return an actor's method that calls the learner's, while nothing else looks at the GPU."""

    def call(actor: "LearnerActor", *arguments: Any) -> Any:
        with actor.at_work, gpu_faults(actor.config):
            return getattr(actor.learner, method)(*arguments)

    return call


def forwarded(method: str, processes: int | None = None) -> Any:
    """Return a method of `Learner` that has so many processes call theirs, or all, and returns the result of the first.

    What is sent to all of them is put into Ray's object store once.
    """

    async def call(learner: "RemoteLearner", *arguments: Any) -> Any:
        await asyncio.shield(learner._opening)
        if processes is None:
            arguments = tuple(
                ray.put(argument) if isinstance(argument, Batch | tuple) else argument for argument in arguments
            )
        return (await learner._ask(learner._actors[:processes], method, *arguments))[0]

    return call


@dataclass(eq=False, repr=False)
class LearnerActor:
    """A `LoraLearner` in its own process, on its share of the machine. Heavy imports wait for `open`."""

    config: Config
    model_path: str
    share: Share
    adapters_folder: str
    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        self.learner: LoraLearner
        self._store: Any = None
        self.at_work = threading.Lock()
        self._under_mps = self.config.run.mps and bool(self.share.gpus % 1)
        self._device = "cuda" if self.share.gpus else "cpu"
        os.environ["DS_ACCELERATOR"] = self._device
        expand_segments()
        if self.config.run.deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # torch demands it before the GPU is first used
        if self._under_mps:
            os.environ["CUDA_MPS_CLIENT_PRIORITY"] = "1"  # decoding steps come first
            os.environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(self.config.run.nvidia_mps_percentage)
        self.share.bind()

    def address(self) -> str:
        """Return this machine's address in the cluster."""
        return ray.util.get_node_ip_address()

    def start_store(self, host: str) -> int:
        """Start the store where the processes meet, at an address of this machine, and return its port."""
        from microbudget_rl.learner.distributed import start_store

        self._store = start_store(host)
        return self._store.port

    def open(self, host: str = "", port: int = 0, handles: bytes = b"") -> list[str]:
        """Load the model together with the other processes. host, port: address of the store where they
        meet. handles: the weights to map instead of loading them.

        Return the learner's warnings: sentences about the slower fallbacks that it uses on this machine.
        """
        import torch

        torch.set_num_threads(self.share.threads)
        if self.config.run.deterministic:
            torch.use_deterministic_algorithms(True)
            # No tensor is read before it is written. (torch has no type for this setting.)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if self.share.memory:
            torch.cuda.set_per_process_memory_fraction(self.share.memory)
        from microbudget_rl.learner.distributed import World, join_store, use_interface
        from microbudget_rl.learner.learner import LoraLearner

        run_folder = Path(self.adapters_folder).parent
        if self.rank == 0 and not run_folder.is_dir():
            raise BadInput(
                f"run.folder: the learner's node does not see {run_folder}; start run.py on a node with a GPU, or name"
                " a folder that all nodes share"
            )
        if self.size > 1:
            use_interface(host if host == LOOPBACK else self.address())
            self._store = self._store or join_store(host, port)
        world = World(self.rank, self.size, self._store)
        model_path = found_here(self.model_path, self.config.model)
        weights = pickle.loads(handles) if handles else None  # written by this run's own WeightsActor
        with learner_records() as records, gpu_faults(self.config):
            self.learner = LoraLearner(self.config, model_path, self.adapters_folder, self._device, world, weights)
        if self._under_mps:
            threading.Thread(target=self._watch, daemon=True).start()
        for record in records:
            print(record.getMessage(), flush=True)  # into the actor's log, where the doctor's report finds them
        warnings = (record.getMessage() for record in records if record.levelno >= logging.WARNING)
        return [" ".join(text.split())[:LONGEST_WARNING] for text in warnings]

    publish = guarded("publish")
    publish_synthetic = guarded("publish_synthetic")
    imitate = guarded("imitate")
    accumulate = guarded("accumulate")
    step = guarded("step")
    score = guarded("score")
    explain = guarded("explain")
    inspect = guarded("inspect")
    save = guarded("save")
    restore = guarded("restore")

    def _watch(self) -> None:
        """Between two calls, end this process with its context on the GPU: nobody asks for a heartbeat."""
        while True:
            time.sleep(HEARTBEAT_S)
            if self.at_work.acquire(blocking=False):
                try:
                    end_without_gpu()
                finally:
                    self.at_work.release()


@contextmanager
def gpu_faults(config: Config) -> Iterator[None]:
    """Raise Halted, with settings that need less, if the GPU is full, and ActorDied for lasting faults of CUDA."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        learner = config.learner
        half = max(learner.microbatch // 2, config.rollout.longest)
        smaller = {"tokens_per_microbatch": half, "gradient_checkpointing": "on", "offload": "cpu"}
        remedies = [f"learner.{key}={value}" for key, value in smaller.items() if getattr(learner, key) != value]
        raise Halted(
            f"learner.tokens_per_microbatch={learner.microbatch} needs more than the learner's share of the"
            f" GPU ({str(error).partition(' GPU ')[0]}); give {' or '.join([*remedies, 'a larger GPU'])}"
        ) from error
    except RuntimeError as error:
        if "CUDA" not in str(error):
            raise
        raise ActorDied(f"on its GPU: {str(error).partition(chr(10))[0]}") from error


@contextmanager
def learner_records() -> Iterator[list[logging.LogRecord]]:
    """Yield a list of what the learner's modules log in the context, at level INFO or above."""
    handler, logger = BufferingHandler(sys.maxsize), logging.getLogger("microbudget_rl.learner")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class RemoteLearner(Learner):
    """The learner over its LearnerActors, in their order. record: gets their warnings at each start.

    When one crashes, all are killed, because the others may wait for it. A call that takes far longer than any before
    it counts as a crash.

    weights: the base model that it maps instead of loading its own.
    """

    def __init__(
        self, actors: Sequence[RemoteActor], clock: Clock, record: Record, weights: SharedWeights | None = None
    ) -> None:
        self._actors = list(actors)
        self._weights = weights
        self._clock = clock
        self._record = record
        self._limit = RestartLimit("learner")
        self._crash: LearnerDied | None = None
        self._longest: dict[str, float] = {}
        self._full = False
        self._asked_s = 0.0  # that all calls so far may take; a process answers them in their order
        self._answered_s = 0.0  # that those may take which came up to the last answered one
        self._opening = asyncio.ensure_future(self._open())

    async def revive(self) -> None:
        if self._crash is not None:
            await self._clock.sleep(self._limit.pause(self._clock.now(), self._crash))
        self._crash = None
        self._longest, self._asked_s, self._answered_s = {}, 0.0, 0.0
        self._opening.cancel()
        for actor in self._actors:
            actor.start()
        self._opening = asyncio.ensure_future(self._open())

    publish = forwarded("publish")
    publish_synthetic = forwarded("publish_synthetic", processes=1)
    imitate = forwarded("imitate")
    accumulate = forwarded("accumulate")
    step = forwarded("step")
    score = forwarded("score", processes=1)
    explain = forwarded("explain", processes=1)
    inspect = forwarded("inspect", processes=1)
    save = forwarded("save")
    restore = forwarded("restore")

    async def close(self) -> None:
        self._opening.cancel()
        for actor in self._actors:
            actor.kill()

    async def _open(self) -> None:
        """Let the processes meet, on the loopback interface if they share a machine, and load the model."""
        given: tuple[Any, ...] = ("", 0, await self._weights.handles()) if self._weights else ()
        if len(self._actors) > 1:
            addresses = await self._ask(self._actors, "address")
            host = LOOPBACK if len(set(addresses)) == 1 else addresses[0]
            given = host, *await self._ask(self._actors[:1], "start_store", host)
        warnings = chain.from_iterable(await self._ask(self._actors, "open", *given))
        for warning in dict.fromkeys(warnings):
            self._record("learner", EventKind.FALLBACK, warning)

    async def _ask(self, actors: list[RemoteActor], method: str, *arguments: Any) -> list[Any]:
        """Return the results of these processes. Raises LearnerDied, or the error of a process."""
        longest = self._longest.get(method)
        self._asked_s = asked_s = self._asked_s + (START_S if longest is None else HANG_S + HANG_FACTOR * longest)
        deadline_s = asked_s - self._answered_s
        began = self._clock.now()
        calls = [asyncio.ensure_future(actor.call(method, *arguments, deadline_s=deadline_s)) for actor in actors]
        try:
            await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
            if _errors(calls):
                await self._fail(calls)
        finally:
            for call in calls:
                call.cancel()
        results = [call.result() for call in calls]
        if method == "accumulate":
            self._full = results[0].examples > 0
        if self._full or method not in UPDATES:
            self._longest[method] = max(longest or 0.0, self._clock.now() - began)
        self._answered_s = max(self._answered_s, asked_s)
        self._limit.answered()
        return results

    async def _fail(self, calls: Sequence["asyncio.Future[Any]"]) -> None:
        """Raise the error of a process, preferring a crash, and kill the processes that may wait for it."""
        _, waiting = await asyncio.wait(calls, timeout=CRASH_NOTICE_S)
        error = min(_errors(calls), key=lambda error: not isinstance(error, ActorDied))
        died = isinstance(error, ActorDied)
        if waiting or died:
            for actor in self._actors:
                actor.kill("another process of the learner failed")
        if died:
            self._crash = LearnerDied(str(error))
            raise self._crash from error
        raise error


def _errors(calls: Sequence["asyncio.Future[Any]"]) -> list[BaseException]:
    return [error for call in calls if call.done() and (error := call.exception())]
