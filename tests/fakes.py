"""Fakes of the protocols, for the coordinator's logic under virtual time. Frail ones crash on command."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from microbudget_rl.actors.advantages import weigh
from microbudget_rl.actors.errors import ActorDied, LearnerDied
from microbudget_rl.actors.messages import (
    AdapterRef,
    Batch,
    Group,
    Inspection,
    Measured,
    Problem,
    Request,
    Reward,
    Sample,
    Sampling,
    Scores,
    Status,
    UpdateStats,
    Verdict,
)
from microbudget_rl.actors.protocols import FAITHFUL, Engine
from microbudget_rl.actors.rollout.pool import AdapterSlots
from microbudget_rl.conf.schema.learner import AlgorithmConfig

T = TypeVar("T")


def make_problem(number: int) -> Problem:
    return Problem(id=f"p{number}", prompt=f"{number} + 1 =", prompt_ids=(1, 2, 3), gold=str(number + 1))


def make_request(index: int = 0, adapter: AdapterRef | None = None, tokens: int = 8) -> Request:
    """Return a request for four samples of the full distribution."""
    return Request(index, make_problem(abs(index)), adapter, Sampling(4, tokens, 1.0, 1.0, 0))


def make_group(
    index: int, version: int = 0, scores: tuple[float, ...] = (1.0, 0.0), adapter: AdapterRef | None = None
) -> Group:
    """A verified group of one-token samples with these scores."""
    rewards, adapter = tuple(map(make_reward, scores)), adapter or AdapterRef(version, 0, "nowhere")
    samples = (Sample((7,), (-1.0,), "7", "stop"),) * len(scores)
    group = Group(index, make_problem(abs(index)), adapter, samples, rewards)
    return replace(group, advantages=weigh(group, AlgorithmConfig(), 1.0))


def make_reward(score: float, status: Status | None = None) -> Reward:
    status = status or (Status.CORRECT if score else Status.WRONG)
    return Reward(total=score, parts={"accuracy": score, "format": 0.0}, verdict=Verdict(score, status, "7", 1.0))


class Remote:
    """Stands for another process: each of its calls takes at least `call_seconds`, and may be cancelled meanwhile."""

    call_seconds = 0.001

    async def travel(self, seconds: float = 0.0) -> None:
        """Take this time, or at least that of a call."""
        await asyncio.sleep(max(seconds, self.call_seconds))

    async def close(self) -> None:
        await self.travel()


class FakeEngine(Remote):
    """Takes `seconds_of(index)` for a group; refuses adapters that no slot holds, as the real one does.

    requests: all, as they came. served: index and adapter of every training group.
    most_at_once: its requests at a time. tokens: sampled in all, one per sample.
    """

    def __init__(self, seconds: float = 1.0, logprob: float = -1.0, name: str = "rollout-0", slots: int = 2) -> None:
        self.name = name
        self.slot_count = slots
        self.start_anew()
        self.seconds = seconds
        self.start_seconds = 0.0
        self.requests: list[Request] = []
        self.logprob, self.finish_reason = logprob, "stop"
        self.served: list[tuple[int, str | None]] = []
        self.most_at_once = 1000
        self.at_work = 0
        self.tokens = 0

    def start_anew(self) -> None:
        self.slots, self.turns = AdapterSlots(self.slot_count, self.unload), asyncio.Condition()

    async def unload(self, _: AdapterRef) -> None:
        await self.travel()

    async def ready(self) -> None:
        seconds, self.start_seconds = self.start_seconds, 0.0
        await self.travel(seconds)

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        await work(self.name, self)

    async def load(self, adapter: AdapterRef) -> None:
        await self.ready()
        await self.slots.occupy(adapter)

    async def retire(self, adapter: AdapterRef) -> None:
        await self.travel()
        await self.slots.retire(adapter)

    async def before(self, request: Request) -> None:
        """Do what a test wants first in each request."""

    async def generate(self, request: Request) -> Group:
        index, sampling, adapter = request.index, request.sampling, request.adapter
        self.requests.append(request)
        await self.before(request)
        async with self.slots.request(adapter):
            await self.work(self.seconds_of(index))
        self.tokens += sampling.samples
        if sampling.samples > 1:
            self.served.append((index, adapter.name if adapter else None))
        sample = Sample((7,), (self.logprob,), "7", self.finish_reason)
        return Group(index, request.problem, adapter, (sample,) * sampling.samples)

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        return (await self.generate(request),)

    @property
    def base_samples(self) -> int:
        """Number of the base model's samples."""
        return sum(request.sampling.samples for request in self.requests if request.adapter is None)

    def seconds_of(self, index: int) -> float:
        return self.seconds

    async def work(self, seconds: float) -> None:
        async with self.turns:
            await self.turns.wait_for(lambda: self.at_work < self.most_at_once)
            self.at_work += 1
        try:
            await self.travel(seconds)
        finally:
            self.at_work -= 1
            async with self.turns:
                self.turns.notify_all()


class FakeGame(FakeEngine):
    """Plays episodes of two turns, with a result of one token between them, and none for the adapter check."""

    async def generate(self, request: Request) -> Group:
        group = await super().generate(request)
        episode = Sample((7, 8, 9), (self.logprob,) * 2, "9", self.finish_reason, ((1, 2),))
        return replace(group, samples=(episode,) * len(group.samples))

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        return (await super().generate(request),)


class Frail:
    """Crashes on command: running and later calls fail until it is revived."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dying = asyncio.Event()
        self.calls: set[asyncio.Task[Any]] = set()
        self.lives = 1
        self.stillborn = 0

    def die(self) -> None:
        self.dying.set()

    async def revive(self) -> None:
        for call in self.calls:
            call.cancel()
        if self.calls:
            await asyncio.wait(self.calls)
        self.dying = asyncio.Event()
        self.lives += 1
        if self.stillborn:
            self.stillborn -= 1
            self.die()

    async def unless_dead(self, work: Coroutine[Any, Any, T]) -> T:
        task, death = asyncio.create_task(work), asyncio.create_task(self.dying.wait())
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        try:
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not self.dying.is_set():
                return task.result()
        finally:
            death.cancel()
            task.cancel()
        await asyncio.wait({task})
        raise ActorDied(f"{self.name} died: it was killed by signal 9")


class FrailEngine(Frail, FakeEngine):
    """Comes back without its versions. gone: adapters whose folders are not there."""

    def __init__(
        self, seconds: float = 1.0, start_seconds: float = 5.0, name: str = "rollout-0", slots: int = 2
    ) -> None:
        FakeEngine.__init__(self, seconds, name=name, slots=slots)
        Frail.__init__(self, name)
        self.start_seconds = self.restart_seconds = start_seconds
        self.load_seconds = 0.0
        self.gone: set[str] = set()

    async def revive(self) -> None:
        await super().revive()
        self.start_anew()
        self.start_seconds = self.restart_seconds
        await self.unless_dead(self.ready())

    async def load(self, adapter: AdapterRef) -> None:
        await self.unless_dead(self._load(adapter))

    async def retire(self, adapter: AdapterRef) -> None:
        await self.unless_dead(super().retire(adapter))

    async def generate(self, request: Request) -> Group:
        return await self.unless_dead(super().generate(request))

    async def _load(self, adapter: AdapterRef) -> None:
        await self.travel(self.load_seconds)
        if adapter.name in self.gone:
            raise FileNotFoundError(f"no folder of {adapter.name}")
        await super().load(adapter)


class FakeLearner(Remote):
    """Counts versions; each update takes `seconds` and is asserted against the staleness limit.

    rates: of each step. scored: its own version and the scored adapter, each time. inspected: its version and
    the responses, each time. deaths: calls in which it crashes, by name and version; each once.
    metrics_of, faulty: the metrics of the update that makes a version, and the versions whose update it skips, with
    minus the number of an update of the warm start.
    imitated: groups of each step of the warm start, and its progress. lessons, warmed: the problems of those
    behind its weights, and whether the warm start has ended.
    save_seconds, saved_at: how long a checkpoint takes, and when each began.
    """

    def __init__(self, seconds: float = 2.0, max_staleness: int = 1) -> None:
        self.seconds = seconds
        self.inspect_seconds = 0.0
        self.max_staleness = max_staleness
        self.accumulated: Batch
        self.batches: list[Batch] = []
        self.rates: list[float] = []
        self.imitated: list[tuple[tuple[Group, ...], float]] = []
        self.start_anew()
        self.scored: list[tuple[int, AdapterRef | None]] = []
        self.inspected: list[tuple[int, tuple[Group, ...]]] = []
        self.deaths: set[tuple[str, int]] = set()
        self.metrics_of: Callable[[int], dict[str, float]] = lambda _: {"policy/entropy": 1.0, "loss": 0.0}
        self.faulty: tuple[int, ...] = ()
        self.save_seconds = 0.0
        self.saved_at: list[float] = []
        self.dead = False

    def start_anew(self) -> None:
        self.version = self.incarnation = 0
        self.lessons: list[list[str]] = []
        self.warmed = False

    async def live(self, call: str) -> None:
        await self.travel()
        if (call, self.version) in self.deaths:
            self.deaths.remove((call, self.version))
            self.dead = True
        if self.dead:
            raise LearnerDied("learner-0 was killed by signal 9")

    async def revive(self) -> None:
        await self.travel()
        self.start_anew()
        self.dead = False

    async def publish(self) -> AdapterRef:
        await self.live("publish")
        self.warmed = bool(self.lessons)
        return AdapterRef(self.version, self.incarnation, "nowhere")

    async def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        await self.live("publish_synthetic")
        return tuple(AdapterRef(number, 0, "nowhere", synthetic=True) for number in (1, 2))

    async def imitate(self, groups: tuple[Group, ...], progress: float) -> tuple[float, str]:
        assert self.version == 0
        assert not self.warmed
        await self.travel(self.seconds)
        await self.live("imitate")
        self.imitated.append((groups, progress))
        self.lessons.append([each.problem.id for each in groups])
        return 1.0 / len(self.lessons), "the loss is nan" if -len(self.lessons) in self.faulty else ""

    async def accumulate(self, batch: Batch) -> Measured:
        assert batch.version == self.version
        assert self.warmed or not self.lessons
        assert all(0 <= self.version - group.version <= self.max_staleness for group in batch.groups)
        assert all(group.adapter and group.adapter.incarnation == self.incarnation for group in batch.groups)
        await self.travel(self.seconds)
        await self.live("accumulate")
        self.accumulated = batch
        return Measured(sum(group.learnable for group in batch.groups))

    async def step(self, rate: float) -> UpdateStats:
        await self.live("step")
        self.rates.append(rate)
        self.batches.append(self.accumulated)
        self.version += 1
        fault = "the loss is nan" if self.version in self.faulty else ""
        return UpdateStats(await self.publish(), self.metrics_of(self.version), fault)

    async def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        await self.live("score")
        self.scored.append((self.version, groups[0].adapter))
        return tuple(tuple(Scores((-1.0,), (-1.0,)) for _ in group.samples) for group in groups)

    async def explain(self, groups: tuple[Group, ...], mistakes: bool = True) -> dict[str, tuple[float, ...]]:
        await self.live("explain")
        return {FAITHFUL: (-1.0,) * len(groups), "no adapter is applied": (-9.0,) * len(groups)}

    async def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        await self.live("inspect")
        await self.travel(self.inspect_seconds)
        self.inspected.append((self.version, groups))
        return Inspection(self.version, 1.0, 2.0, 0.5, {"q_proj": 1.0}, {"0.q_proj": 1.5})

    async def save(self, folder: str) -> None:
        self.saved_at.append(asyncio.get_running_loop().time())
        await self.travel(self.save_seconds)
        await self.live("save")
        Path(folder, "learner.json").write_text(json.dumps([self.version, self.lessons, self.warmed]))
        Path(folder, "adapter").mkdir()
        Path(folder, "adapter", "adapter_config.json").write_text(str(self.version))

    async def restore(self, folder: str | None, incarnation: int) -> None:
        await self.live("restore")
        assert folder or self.version == 0
        self.start_anew()
        self.incarnation = incarnation
        if folder:
            self.version, self.lessons, self.warmed = json.loads(Path(folder, "learner.json").read_text())


class FakeVerifier(Remote):
    """Takes `seconds_of(group)`, and gives it the rewards of `rewards_of`: by default its first half is right."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds_of: Callable[[Group], float] = lambda _: seconds
        self.rewards_of: Callable[[Group], tuple[Reward, ...]] = half_right

    async def score(self, group: Group) -> Group:
        await self.travel(self.seconds_of(group))
        return replace(group, rewards=self.rewards_of(group)[: len(group.samples)])


def half_right(group: Group) -> tuple[Reward, ...]:
    right = (len(group.samples) + 1) // 2
    return tuple(make_reward(float(number < right)) for number in range(len(group.samples)))


class FrailVerifier(Frail, FakeVerifier):
    """One of several behind a RemoteVerifier."""

    def __init__(self, name: str = "reward-0") -> None:
        Frail.__init__(self, name)
        FakeVerifier.__init__(self)

    async def score(self, group: Group) -> Group:
        return await self.unless_dead(super().score(group))

    async def revive(self) -> None:
        await super().revive()
        await self.travel()
