"""The interfaces between the coordinator and the rest of the system. Tests implement them by fakes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from microbudget_rl.actors.messages import (
    AdapterRef,
    Batch,
    Group,
    Inspection,
    Measured,
    Request,
    Scores,
    UpdateStats,
)

FAITHFUL = "the adapter is applied as it should be"


class Clock(Protocol):
    """Time in seconds."""

    def now(self) -> float:
        """Return monotonic seconds."""

    async def sleep(self, seconds: float) -> None: ...


class Sampler(Protocol):
    """Generates groups under versioned adapters."""

    async def generate(self, request: Request) -> Group:
        """Sample all responses to a problem from one adapter version; raise if that version is not loaded."""

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        """Have each engine generate this group. Return the groups in the same order each time."""


class Engine(Sampler, Protocol):
    """A sampler that holds adapters: one engine, or several that act as one.

    An engine that crashes or hangs is replaced, loads its versions again, and gets its requests again. ActorDied is
    raised only if that does not help.
    """

    async def ready(self) -> None:
        """Return once the engine takes requests."""

    async def at_start(self, work: "Callable[[str, Engine], Awaitable[None]]") -> None:
        """Do `work` with each engine and its name, and with each later replacement before its first request."""

    async def load(self, adapter: AdapterRef) -> None:
        """Make a version available; wait for a free slot while older versions still serve requests."""

    async def retire(self, adapter: AdapterRef) -> None:
        """Accept no new request for a version and free its slot once the last running one has ended."""

    async def close(self) -> None:
        """Free everything the engine holds, its processes included."""


class Learner(Protocol):
    """Owns the trainable weights. Any call but `revive` may raise LearnerDied: `revive` it, then restore."""

    async def revive(self) -> None:
        """Replace a crashed process by a fresh one at version 0. Raise ActorDied if it has crashed too often."""

    async def publish(self) -> AdapterRef:
        """Write the current version to disk as a PEFT adapter, atomically. It ends a warm start: version 0 is then the
        reference (`algorithm.reference`), and the optimizer begins anew.
        """

    async def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        """Write as many noise adapters as an engine serves at once, in the same form as `publish`."""

    async def imitate(self, groups: tuple[Group, ...], progress: float) -> tuple[float, str]:
        """Take one step of the warm start, whose version stays 0. Return its loss, and its fault as in UpdateStats.

        groups: their samples are imitated. progress: fraction of the warm start that is over.
        """

    async def accumulate(self, batch: Batch) -> Measured:
        """Compute the gradient of a batch; the weights stay. Raises an error if a group's staleness is above η."""

    async def step(self, rate: float) -> UpdateStats:
        """Take the optimizer steps of the accumulated batch at a learning rate, and publish the new version.

        A loss or gradient that is not finite is returned as `fault`; its step and all later ones are skipped.
        """

    async def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        """Return log-probabilities of given responses, per group and sample."""

    async def explain(self, groups: tuple[Group, ...], mistakes: bool = True, /) -> dict[str, tuple[float, ...]]:
        """Return log-probabilities of all tokens sampled from a synthetic adapter, in their order: under that adapter,
        as FAITHFUL, and if `mistakes`, under each that an engine might make with it, named by a clause.
        """

    async def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        """Measure how far the current weights have moved from the reference, on given responses."""

    async def save(self, folder: str) -> None:
        """Write everything a restore needs into an existing folder."""

    async def restore(self, folder: str | None, incarnation: int) -> None:
        """Continue from a folder of `save`, under a new incarnation. None: version 0 of a fresh learner."""

    async def close(self) -> None: ...


class Verifier(Protocol):
    """Verifies responses. Crashed actors are replaced, as in an Engine."""

    async def score(self, group: Group) -> Group:
        """Return the same group with `rewards` filled in."""

    async def close(self) -> None: ...


class Tracker(Protocol):
    """A logger of the run. A thread of its own calls it; its errors are counted and do not stop the run."""

    def begin(self, next_update: int) -> None:
        """Begin or continue the run. When called again, earlier updates from `next_update` on no longer count."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers by name, of an update or of a version's evaluation."""

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Log samples. name: `eval-base`, `eval-final-NAME` or `update-000012`."""

    def end(self, summary: dict[str, Any]) -> None:
        """Log summary.json with the run's events, and send everything that is left."""
