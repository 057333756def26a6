"""Where the time and the tokens went."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Sampler
from actors.storage.documents import LedgerRecord

UNDECIDED = "tokens/waiting"
"""Tokens of groups that no batch has taken yet."""

HISTORY = ("tokens/useful", "tokens/zero_variance", "tokens/truncated", "tokens/failed")
"""Tokens behind the current adapter, or dropped on the way to it: they are lost with that history."""

ABANDONED = "tokens/abandoned"


class Ledger:
    """Seconds of every actor in named activities, and counts, over all processes of a run.

    Each actor is in exactly one activity at a time, so that its seconds add up to the time the run has spent; those
    before its first activity in a process are its `start`. Each generated token is in exactly one `tokens/…`.
    """

    def __init__(self, clock: Clock, spent: float = 0.0, carried: LedgerRecord | None = None) -> None:
        """spent: seconds of the run up to now. carried: `Ledger.record` of the process before this one."""
        record = carried or LedgerRecord()
        self._clock = clock
        self._began = clock.now() - spent
        self._now: dict[str, tuple[str, float]] = {}
        self._seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for actor, activities in record.seconds.items():
            self._seconds[actor].update(activities)
        self._counts: dict[str, int] = defaultdict(int, record.counts)

    def enter(self, actor: str, activity: str) -> None:
        """Count the time of an actor for another activity from now on."""
        now = self._clock.now()
        if actor not in self._now:
            before = now - self._began - sum(self._seconds[actor].values())
            self._seconds[actor]["start"] += max(before, 0.0)  # rounding may leave less than nothing
        self._add_up(actor)
        self._now[actor] = (activity, now)

    def enter_all(self, activity: str) -> None:
        for actor in ("rollouts", "rewards", "learner"):
            self.enter(actor, activity)

    def count(self, name: str, amount: int = 1) -> None:
        self._counts[name] += amount

    def move(self, name: str, other: str, amount: int) -> None:
        """Count as `other` what was counted as `name`."""
        self._counts[name] -= amount
        self._counts[other] += amount

    def go_back(self, counts: dict[str, int]) -> None:
        """Count the tokens of the history since `counts`, and those not decided about, as abandoned."""
        for name in HISTORY:
            self.move(name, ABANDONED, self._counts[name] - counts.get(name, 0))
        self.move(UNDECIDED, ABANDONED, self._counts[UNDECIDED])

    @property
    def seconds(self) -> dict[str, dict[str, float]]:
        """Seconds by actor and activity up to now."""
        for actor in self._now:
            self._add_up(actor)
        return {actor: dict(activities) for actor, activities in self._seconds.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Counts that are not zero."""
        return {name: count for name, count in self._counts.items() if count}

    @property
    def record(self) -> LedgerRecord:
        """Everything, as summary.json has it and the next process carries it on."""
        return LedgerRecord(seconds=self.seconds, counts=self.counts)

    @property
    def figures(self) -> dict[str, float]:
        """Everything under flat names, as for metrics: `ledger/<actor>/<activity>` in seconds, `ledger/tokens/…`."""
        return {
            **{f"ledger/{actor}/{name}": s for actor, names in self.seconds.items() for name, s in names.items()},
            **{f"ledger/{name}": float(count) for name, count in self.counts.items()},
        }

    def _add_up(self, actor: str) -> None:
        if actor in self._now:
            activity, since = self._now[actor]
            now = self._clock.now()
            self._seconds[actor][activity] += now - since
            self._now[actor] = (activity, now)


@dataclass
class Pace:
    """Tokens and seconds of all samples that were drawn to their end; engines: that answered the last probe."""

    tokens: int = 0
    seconds: float = 0.0
    engines: int = 1


@dataclass(frozen=True)
class MeteredSampler:
    """A sampler whose tokens are counted as `tokens/<kind>`.

    How far a cancelled request had come is unknown. It is counted as `tokens/cancelled`, estimated from its duration
    and the usual pace of a sample, and limited to what was asked for.
    """

    sampler: Sampler
    kind: str
    ledger: Ledger
    clock: Clock
    pace: Pace

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        started = self.clock.now()
        with self._unless_cancelled(sampling.samples, sampling.max_tokens):
            group = await self.sampler.generate(index, problem, adapter, sampling)
        self.pace.tokens += group.tokens
        self.pace.seconds += (self.clock.now() - started) * sampling.samples
        self.ledger.count(f"tokens/{self.kind}", group.tokens)
        return group

    async def probe(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        with self._unless_cancelled(sampling.samples * self.pace.engines, sampling.max_tokens):
            groups = await self.sampler.probe(index, problem, adapter, sampling)
        self.pace.engines = len(groups)
        self.ledger.count(f"tokens/{self.kind}", sum(group.tokens for group in groups))
        return groups

    @contextlib.contextmanager
    def _unless_cancelled(self, samples: int, max_tokens: int) -> Iterator[None]:
        started = self.clock.now()
        try:
            yield
        except asyncio.CancelledError:
            seconds = self.clock.now() - started
            each = seconds * self.pace.tokens / self.pace.seconds if self.pace.seconds else 0.0
            self.ledger.count("tokens/cancelled", int(samples * min(each, max_tokens)))
            raise
