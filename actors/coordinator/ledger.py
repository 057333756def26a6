"""The account of time and tokens."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from microbudget_rl.actors.messages import Group, Request, Sampling
from microbudget_rl.actors.protocols import Clock, Sampler
from microbudget_rl.actors.storage.documents import LedgerRecord

UNDECIDED = "tokens/waiting"
"""The count of tokens in groups that no batch has taken yet."""

WARM_START = "warm_start"
"""The phase of the warm start, the activity of engines and learner in it, and the kind of its tokens."""

HISTORY = ("tokens/useful", "tokens/zero_variance", "tokens/truncated", "tokens/failed")
"""The counts of tokens that were trained on or dropped. A rollback abandons those since the checkpoint."""

ABANDONED = "tokens/abandoned"


class Ledger:
    """Counts each actor's seconds by activity, and tokens and events by name, over all processes of a run.

    Each actor is in exactly one activity at a time, so that its seconds add up to the run's. Seconds before its first
    activity in a process count as `start`. Each generated token is in exactly one `tokens/…`.

    sampled_tokens, sampling_seconds: sums over the samples that `generate` has returned in this process.
    """

    def __init__(self, clock: Clock, spent: float = 0.0, carried: LedgerRecord | None = None, since: float = 0) -> None:
        """spent, since: seconds of the run up to now, and to this process's start. carried: the record before it."""
        record = carried or LedgerRecord()
        self.clock = clock
        self.sampled_tokens, self.sampling_seconds = 0, 0.0
        self._began = clock.now() - spent
        self._since, self._start_s = since, record.start_s
        self._warm_start_s = record.seconds.get("run", {}).get(WARM_START, 0.0)
        self._now: dict[str, tuple[str, float]] = {}
        self._seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for actor, activities in record.seconds.items():
            self._seconds[actor].update(activities)
        self._counts: dict[str, int] = defaultdict(int, record.counts)

    def enter(self, actor: str, activity: str) -> None:
        """Count an actor's time for another activity from now on."""
        now = self.clock.now()
        if actor in self._now:
            self._add_up(actor)
        else:
            uncounted_s = now - self._began - sum(self._seconds[actor].values())
            self._seconds[actor]["start"] += max(uncounted_s, 0.0)  # rounding may make it negative
        self._now[actor] = (activity, now)

    def enter_all(self, activity: str) -> None:
        for actor in ("rollouts", "rewards", "learner"):
            self.enter(actor, activity)

    def note_start(self) -> None:
        """Keep the seconds since the start of this process, without a warm start, if no start has taken longer."""
        warm_start_s = self.seconds.get("run", {}).get(WARM_START, 0.0) - self._warm_start_s
        self._start_s = max(self._start_s, self.clock.now() - self._began - self._since - warm_start_s)

    def count(self, name: str, amount: int = 1) -> None:
        self._counts[name] += amount

    def move(self, name: str, other: str, amount: int) -> None:
        self._counts[name] -= amount
        self._counts[other] += amount

    def go_back(self, counts: dict[str, int]) -> None:
        """Count as abandoned the tokens of HISTORY since `counts`, and the tokens of waiting groups."""
        for name in HISTORY:
            self.move(name, ABANDONED, self._counts[name] - counts.get(name, 0))
        self.move(UNDECIDED, ABANDONED, self._counts[UNDECIDED])

    @property
    def seconds(self) -> dict[str, dict[str, float]]:
        for actor in self._now:
            self._add_up(actor)
        return {actor: dict(activities) for actor, activities in self._seconds.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Counts that are not zero."""
        return {name: count for name, count in self._counts.items() if count}

    @property
    def record(self) -> LedgerRecord:
        """Seconds and counts, for summary.json and for the next process, which continues them."""
        return LedgerRecord(start_s=self._start_s, seconds=self.seconds, counts=self.counts)

    @property
    def figures(self) -> dict[str, float]:
        """Seconds and counts by flat names, as in metrics: `ledger/<actor>/<activity>`, `ledger/tokens/…`."""
        return {
            **{f"ledger/{actor}/{name}": s for actor, names in self.seconds.items() for name, s in names.items()},
            **{f"ledger/{name}": float(count) for name, count in self.counts.items()},
        }

    def _add_up(self, actor: str) -> None:
        activity, since = self._now[actor]
        now = self.clock.now()
        self._seconds[actor][activity] += now - since
        self._now[actor] = (activity, now)


@dataclass(frozen=True)
class MeteredSampler:
    """A sampler whose tokens are counted as `tokens/<kind>`.

    The tokens of a cancelled request are unknown. `tokens/cancelled` has an estimate from its duration and the average
    pace of a sample, at most the tokens requested of one engine.
    """

    sampler: Sampler
    kind: str
    ledger: Ledger

    async def generate(self, request: Request) -> Group:
        started = self.ledger.clock.now()
        with self._counting_cancelled(request.sampling):
            group = await self.sampler.generate(request)
        self.ledger.sampled_tokens += group.tokens
        self.ledger.sampling_seconds += (self.ledger.clock.now() - started) * request.sampling.samples
        self.ledger.count(f"tokens/{self.kind}", group.tokens)
        if given := sum(sample.given_tokens for sample in group.samples):
            self.ledger.count("tokens/given", given)
        return group

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        with self._counting_cancelled(request.sampling):
            groups = await self.sampler.generate_on_each(request)
        self.ledger.count(f"tokens/{self.kind}", sum(group.tokens for group in groups))
        return groups

    @contextlib.contextmanager
    def _counting_cancelled(self, sampling: Sampling) -> Iterator[None]:
        ledger, started = self.ledger, self.ledger.clock.now()
        try:
            yield
        except asyncio.CancelledError:
            pace = ledger.sampled_tokens / ledger.sampling_seconds if ledger.sampling_seconds else 0.0
            tokens = min(pace * (ledger.clock.now() - started), sampling.max_tokens)
            ledger.count("tokens/cancelled", int(sampling.samples * tokens))
            raise
