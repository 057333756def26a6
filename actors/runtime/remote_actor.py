"""A Ray actor that may crash or hang, and can be started again."""

import asyncio
import contextlib
import math
import os
import re
import time
from pathlib import Path
from typing import Any, ClassVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from microbudget_rl.actors.clock import within
from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.runtime.cause_of_death import ExitWatcher, cause_of_death
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.runtime.process import leave_mps
from microbudget_rl.conf.errors import BadInput

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats of an actor."""

SILENCE_S = 90.0
"""Seconds without an answer after which an actor counts as hanging. The longest healthy silences are compilations on
first use, 16 s on a busy machine of two cores."""

START_S = 1800.0
"""Seconds after which an actor that has not started counts as hanging: a slow disk takes minutes."""

RESTART_FACTOR, LEAST_RESTART_S = 5.0, 180.0
"""A later start may take so many times the first one, at most half of what is left of the budget, and at least so many
seconds: it finds compiled kernels and files in memory, but a busy machine."""

CALLS_AT_ONCE = 100_000
"""Most concurrent calls to an asynchronous actor, more than there will ever be. With Ray's default of 1000 the
heartbeat would wait behind a larger evaluation, and a healthy actor would be killed."""


def raise_bad_input(error: Exception) -> None:
    """Raise the BadInput of an actor's constructor again, if it caused an error: Ray passes on only its text."""
    if bad := re.search(r"BadInput: (.+)$", str(error), re.MULTILINE):
        raise BadInput(bad[1]) from error


class ActorProcess:
    """One process of an actor. killed: reason for killing it, else empty. watcher: set once it is up on this node."""

    def __init__(self, handle: ActorHandle) -> None:
        self.handle = handle
        self.killed = ""
        self.watcher: ExitWatcher | None = None
        self._cause: asyncio.Task[str] | None = None

    async def cause(self, error: str) -> str:
        """Return why the process ended, and find it out only once. error: the text of a call's error."""
        if self.killed:
            return self.killed
        if self._cause is None:
            self._cause = asyncio.create_task(asyncio.to_thread(cause_of_death, error, self.watcher, session_logs()))
        return await asyncio.shield(self._cause)


class RemoteActor:
    """A Ray actor of a plain class, under a name for the dashboard, with its share of Ray's resources.

    Errors of its methods are raised here again. ActorDied means that the process is gone or hangs, or that its engine
    has failed; `start` replaces it. It is a `Restartable`; a subclass has the methods of its kind.

    asynchronous: whether the class has async methods, among them `alive`. Such an actor is killed when it does not
    answer its heartbeat, and its calls can be cancelled.
    bundle: a PlacementGroupSchedulingStrategy to take the share from; without one an actor is on its share's node, or
    on any once that is gone.
    ends: when the budget of this process's run ends, by time.monotonic().
    """

    ends: ClassVar[float] = math.inf

    def __init__(
        self, kind: type, name: str, share: Share, *arguments: Any, asynchronous: bool = True, bundle: Any = None
    ) -> None:
        self.name = name
        self._kind = kind
        self._share = share
        self._arguments = arguments
        self._asynchronous = asynchronous
        self._strategy = bundle or (NodeAffinitySchedulingStrategy(share.node, soft=True) if share.node else "DEFAULT")
        self._starts = 0
        self._most_s = START_S
        self.start()

    def start(self, *more: Any) -> None:
        """Start a fresh process, with these further arguments, after killing the one before."""
        most_s = self._most_s
        if self._starts:
            self.kill()
            most_s = min(most_s, max((self.ends - time.monotonic()) / 2, LEAST_RESTART_S))
        self._starts += 1
        remote: Any = ray.remote(self._kind)
        handle = remote.options(
            name=self.name if self._starts == 1 else f"{self.name}-life-{self._starts}",
            num_cpus=self._share.threads,
            num_gpus=self._share.gpus,
            scheduling_strategy=self._strategy,
            max_concurrency=CALLS_AT_ONCE if self._asynchronous else 1,
        ).remote(*self._arguments, *more)
        self._process = ActorProcess(handle)
        self._heartbeat = asyncio.create_task(self._watch(self._process, most_s))

    async def revive(self) -> None:
        """Start a fresh process and return once it answers."""
        self.start()
        await self.call("alive")

    async def close(self) -> None:
        await self.call("close")

    def kill(self, why: str = "it was killed") -> None:
        """End the process; its running calls raise ActorDied with this reason."""
        self._process.killed = self._process.killed or why
        if self._heartbeat is not asyncio.current_task():
            self._heartbeat.cancel()
        if self._share.gpus and self._process.watcher:
            leave_mps(self._process.watcher.pid)
        ray.kill(self._process.handle)

    async def call(self, method: str, *arguments: Any, deadline_s: float | None = None) -> Any:
        """Return a method's result. Raises ActorDied if the process ends, or is killed as the deadline has passed."""
        process = self._process
        reference: ray.ObjectRef[Any] = getattr(process.handle, method).remote(*arguments)
        try:
            return await within(deadline_s, reference)
        except asyncio.CancelledError:
            if self._asynchronous:
                ray.cancel(reference)
            raise
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ActorDied):
                raise ActorDied(f"{self.name} died: {cause}") from error
            raise (cause if isinstance(cause, Exception) else error) from error
        except (RayActorError, OutOfMemoryError) as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise_bad_input(error)
            raise ActorDied(f"{self.name} died: {await process.cause(str(error))}") from error
        except TimeoutError:
            if process is self._process:
                self.kill(f"it did not answer `{method}` within {deadline_s:.0f} s and was killed")
            raise ActorDied(f"{self.name} died: {await process.cause('')}") from None

    async def _watch(self, process: ActorProcess, most_s: float) -> None:
        """Watch the process once it is up, and kill it if it hangs. `call` notices its end. most_s: for its start."""
        with contextlib.suppress(RayActorError, RayTaskError, OutOfMemoryError):
            began = time.monotonic()
            try:
                asked: ray.ObjectRef[tuple[str, int]] = process.handle.__ray_call__.remote(_whereabouts)
                node, pid = await within(most_s, asked)
            except TimeoutError:
                self.kill(f"it did not start within {most_s:.0f} s and was killed")
                return
            if self._most_s == START_S:
                self._most_s = min(max(RESTART_FACTOR * (time.monotonic() - began), LEAST_RESTART_S), START_S)
            if node == ray.get_runtime_context().get_node_id():
                process.watcher = ExitWatcher(pid)
            while self._asynchronous:
                await asyncio.sleep(HEARTBEAT_S)
                try:
                    await within(SILENCE_S, process.handle.alive.remote())
                except TimeoutError:
                    self.kill(f"it did not answer for {SILENCE_S:.0f} s and was killed")
                    return


def session_logs() -> Path:
    """Return the log folder of this process's Ray session. Ray 2.60 has no public function for it."""
    return Path(ray._private.worker.global_worker.node.get_logs_dir_path())


def _whereabouts(_: Any) -> tuple[str, int]:
    return ray.get_runtime_context().get_node_id(), os.getpid()
