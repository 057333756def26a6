"""A Ray actor that can die, hang, and be started again."""

import asyncio
import contextlib
import os
import re
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.errors import ActorDied
from actors.runtime.cause_of_death import Witness, log_of, post_mortem
from actors.runtime.placement import Share
from conf.errors import BadInput

HEARTBEAT_S = 5.0
"""Between two questions whether an actor is still there."""

SILENCE_S = 90.0
"""An actor that does not answer for so long hangs. The longest healthy silences are compilations on first use, 16 s on
a busy machine of two cores."""

START_S = 1800.0
"""An actor that is not up after so long hangs. Weights on a slow disk and CUDA graphs take minutes."""

CALLS_AT_ONCE = 100_000
"""To an asynchronous actor: more than there will ever be. Ray's default is 1000, behind which the heartbeat would wait
where an evaluation draws more problems than that, and a healthy actor be killed."""

BAD_INPUT = re.compile(r"BadInput: (.+)$", re.MULTILINE)


class Life:
    """One process of an actor. verdict: why it was killed, if it was. obituary: the cause of its death, found once."""

    def __init__(self, handle: ActorHandle) -> None:
        self.handle = handle
        self.pid: int | None = None
        self.witness: Witness | None = None
        self.verdict = ""
        self.obituary: asyncio.Task[str] | None = None

    async def cause(self, error: str) -> str:
        """Why it died, given the text that says so."""
        if self.verdict:
            return self.verdict
        if self.obituary is None:
            log = log_of(session_logs(), self.pid, error)
            self.obituary = asyncio.create_task(asyncio.to_thread(post_mortem, error, self.witness, log))
        return await asyncio.shield(self.obituary)


class RemoteActor:
    """A Ray actor of a plain class, under a name the dashboard shows, holding its share of Ray's resources.

    Errors that its methods raise come back as they were raised; ActorDied says that the process is gone or useless, and
    `start` replaces it. asynchronous: of a class with async methods, among them `alive`. Such an actor is killed when
    it does not answer its heartbeat, and its calls can be cancelled. bundle: a PlacementGroupSchedulingStrategy to take
    the share from; otherwise an actor is on its share's node while that lives, and then on any.
    """

    def __init__(
        self,
        kind: type,
        name: str,
        share: Share,
        *arguments: Any,
        asynchronous: bool = True,
        bundle: Any = None,
    ) -> None:
        self.name = name
        self._kind = kind
        self._share = share
        self._arguments = arguments
        self._asynchronous = asynchronous
        self._strategy = bundle or (NodeAffinitySchedulingStrategy(share.node, soft=True) if share.node else "DEFAULT")
        self._lives = 0
        self._life: Life
        self._watch: asyncio.Task[None]
        self.start()

    def start(self, *more: Any) -> None:
        """A fresh process, given these arguments besides; what is left of the one before is killed."""
        if self._lives:
            self.kill()
        self._lives += 1
        remote: Any = ray.remote(self._kind)
        handle = remote.options(
            name=self.name if self._lives == 1 else f"{self.name}-life-{self._lives}",
            num_cpus=self._share.threads,
            num_gpus=self._share.gpus,
            scheduling_strategy=self._strategy,
            max_concurrency=CALLS_AT_ONCE if self._asynchronous else 1,
        ).remote(*self._arguments, *more)
        self._life = Life(handle)
        self._watch = asyncio.create_task(self._keep_watch(self._life))

    def kill(self, why: str = "it was killed") -> None:
        """End the process; calls that wait for it raise ActorDied with this reason."""
        self._life.verdict = self._life.verdict or why
        if self._watch is not asyncio.current_task():
            self._watch.cancel()
        ray.kill(self._life.handle)

    async def call(self, method: str, *arguments: Any, deadline_s: float | None = None) -> Any:
        """The result of a method. ActorDied if the process dies, or does not answer by the deadline and is killed."""
        life = self._life
        reference: ray.ObjectRef[Any] = getattr(life.handle, method).remote(*arguments)
        try:
            async with asyncio.timeout(deadline_s):
                return await reference
        except asyncio.CancelledError:
            if self._asynchronous:
                ray.cancel(reference)
            raise
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ActorDied):
                raise ActorDied(f"{self.name} died: {await life.cause(str(cause))}") from error
            raise (cause if isinstance(cause, Exception) else error) from error
        except (RayActorError, OutOfMemoryError) as error:
            if bad := BAD_INPUT.search(str(error)):
                raise BadInput(bad[1]) from error
            raise ActorDied(f"{self.name} died: {await life.cause(str(error))}") from error
        except TimeoutError:
            if life is self._life:
                self.kill(f"it did not answer `{method}` within {deadline_s:.0f} s and was killed")
            raise ActorDied(f"{self.name} died: {await life.cause('')}") from None

    async def _keep_watch(self, life: Life) -> None:
        """Note the process of this life, and kill it if it hangs. Its death is for `call` to notice."""
        with contextlib.suppress(RayActorError, RayTaskError, OutOfMemoryError):
            try:
                async with asyncio.timeout(START_S):
                    node, life.pid = await life.handle.__ray_call__.remote(_whereabouts)
                if node == ray.get_runtime_context().get_node_id():
                    life.witness = Witness(life.pid)
            except TimeoutError:
                self.kill(f"it did not start within {START_S:.0f} s and was killed")
                return
            while self._asynchronous:
                await asyncio.sleep(HEARTBEAT_S)
                try:
                    async with asyncio.timeout(SILENCE_S):
                        await life.handle.alive.remote()
                except TimeoutError:
                    self.kill(f"it gave no sign of life for {SILENCE_S:.0f} s and was killed")
                    return


def session_logs() -> Path:
    """Folder of the logs of the Ray session that this process belongs to."""
    return Path(ray._private.worker.global_worker.node.get_logs_dir_path())


def _whereabouts(_: Any) -> tuple[str, int]:
    return ray.get_runtime_context().get_node_id(), os.getpid()
