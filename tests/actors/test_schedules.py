"""Whole runs under random schedules of slow, failing and barren groups, dying learners, stops and crashes.

Whatever happens: no group is used too old or by another history (the fake learner asserts it), the budget is kept,
nothing waits for ever (the virtual clock raises Deadlock), no problem is skipped or comes up twice in the history
behind the adapter, and every second and token is accounted for.
"""

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.budget import Budget
from actors.coordinator import Coordinator
from actors.ledger import Ledger
from actors.messages import Batch, Group, Status
from actors.outcome import Halted, Interrupted, root_cause
from actors.run_folder import RunFolder
from actors.virtual_time import VirtualClock, run_virtually
from tests.actors.test_coordinator import make_config, make_problems
from tests.fakes import FakeEngine, FakeLearner, FakeVerifier, make_reward

CALLS = ("publish_synthetic", "explain", "publish", "widen", "score", "accumulate", "step", "save", "restore")
GRACE_S = 10.0


@dataclass(frozen=True)
class Schedule:
    """seed: of every duration and outcome. barren, failed: shares of groups. crashes, stop: seconds into a process."""

    seed: int
    staleness: int
    per_update: int
    max_running: int
    overlap: str
    refill: bool
    rest_epochs: int
    barren: float
    failed: float
    learn: float
    save: float
    budget: float
    updates: int | None
    every: int
    validate: int
    deaths: frozenset[tuple[str, int]]
    crashes: tuple[float, ...]
    stop: float | None


schedules = st.builds(
    Schedule,
    seed=st.integers(0, 10**6),
    staleness=st.integers(0, 3),
    per_update=st.integers(1, 4),
    max_running=st.integers(1, 12),
    overlap=st.sampled_from(("on", "off", "auto")),
    refill=st.booleans(),
    rest_epochs=st.sampled_from((0, 0, 1)),
    barren=st.floats(0.0, 0.6),
    failed=st.sampled_from((0.0, 0.2)),
    learn=st.floats(0.1, 20.0),
    save=st.floats(0.0, 8.0),
    budget=st.floats(20.0, 300.0),
    updates=st.none() | st.integers(1, 30),
    every=st.integers(1, 6),
    validate=st.integers(0, 3),
    deaths=st.frozensets(st.tuples(st.sampled_from(CALLS), st.integers(0, 12)), max_size=4),
    crashes=st.lists(st.floats(1.0, 150.0), max_size=2).map(tuple),
    stop=st.none() | st.floats(0.0, 200.0),
)


class QuietFolder(RunFolder):
    """Without TensorBoard, which takes nine tenths of the time of such a run."""

    def _open_tensorboard(self) -> None:
        self.cut_metrics()

        class Silence:
            def __getattr__(self, _: str) -> Any:
                return lambda *_, **__: None

        self._tensorboard = Silence()  # type: ignore[assignment]


class Trial:
    """The processes of one run, one after the other."""

    def __init__(self, path: Path, schedule: Schedule) -> None:
        self.path = path
        self.schedule = schedule
        self.config = make_config(
            max_staleness=schedule.staleness,
            problems_per_update=schedule.per_update,
            overlap=schedule.overlap,
            refill=schedule.refill,
        )
        self.config.curriculum.rest_epochs = schedule.rest_epochs
        self.config.budget.updates = schedule.updates
        self.config.budget.grace_s = GRACE_S
        self.config.checkpoint.every = schedule.every
        self.config.validation.every, self.config.validation.share = schedule.validate, 0.2
        self.problems = make_problems(train=5)
        self.deaths = set(schedule.deaths)
        self.history: dict[int, Batch] = {}
        self.tokens = 0
        self.spent = 0.0

    def go(self, crash: float | None, stop: float | None) -> bool:
        """One process; whether the run has come to its end."""
        return run_virtually(self._process(crash, stop))

    async def _process(self, crash: float | None, stop: float | None) -> bool:
        clock = VirtualClock()
        folder = QuietFolder(self.path, keep_last=2)
        budget = Budget(self.schedule.budget, folder.spent, clock)
        ledger = Ledger(clock, folder.spent, folder.ledger())
        engine, learner, verifier = self._engine(), self._learner(), FakeVerifier()
        verifier.score = self._score  # type: ignore[method-assign]
        coordinator = Coordinator(
            self.config,
            engine,
            learner,
            verifier,
            self.problems,
            folder,
            budget,
            ledger,
            clock,
            max_running=self.schedule.max_running,
            resume_from=folder.checkpoint,
        )
        if stop is not None:
            asyncio.get_running_loop().call_later(stop, coordinator.stop, "SIGTERM")
        ended = True
        try:
            async with asyncio.timeout(crash):
                await coordinator.run()
        except TimeoutError:
            ended = False
        except ExceptionGroup as error:
            if not isinstance(root_cause(error), Halted | Interrupted):
                raise
        folder.write_spent(budget.spent, ledger.record)
        self.deaths = learner.deaths
        self.tokens += engine.tokens
        self.spent, self.ledger, self.coordinator = budget.spent, ledger, coordinator
        self.stopped = stop
        self.check(ended)
        return ended

    def _engine(self) -> FakeEngine:
        engine = FakeEngine()
        engine.seconds_of = self._seconds  # type: ignore[method-assign]
        return engine

    def _learner(self) -> FakeLearner:
        learner = FakeLearner(self.schedule.learn, self.schedule.staleness)
        learner.deaths = self.deaths
        step, save = learner.step, learner.save

        async def note(progress: float) -> Any:
            stats = await step(progress)
            batch = learner.batches[-1]
            self.history = {v: b for v, b in self.history.items() if v < batch.version} | {batch.version: batch}
            return stats

        async def slow(folder: str) -> None:
            await asyncio.sleep(self.schedule.save)
            await save(folder)

        learner.step, learner.save = note, slow  # type: ignore[method-assign]
        return learner

    def _draw(self, purpose: str, index: int) -> random.Random:
        return random.Random(f"{self.schedule.seed}/{purpose}/{index}")

    def _seconds(self, index: int) -> float:
        return self._draw("seconds", index).choice((0.2, 1.0, 3.0, 15.0))

    def _outcome(self, index: int) -> str:
        draw = self._draw("outcome", index).random()
        if draw < self.schedule.failed:
            return "failed"
        return "barren" if draw < self.schedule.failed + self.schedule.barren else "useful"

    async def _score(self, group: Group) -> Group:
        await asyncio.sleep(self._draw("verify", group.index).choice((0.0, 0.1, 4.0)))
        outcome = self._outcome(group.index)
        if outcome == "failed":
            rewards = (make_reward(0.0, Status.TIMEOUT),) * len(group.samples)
        elif outcome == "barren":
            rewards = (make_reward(0.0),) * len(group.samples)
        else:
            rewards = (make_reward(1.0), make_reward(0.0))[: len(group.samples)]
        return replace(group, rewards=rewards)

    def check(self, ended: bool) -> None:
        assert self.spent <= self.schedule.budget
        for activities in self.ledger.seconds.values():
            assert sum(activities.values()) == pytest.approx(self.spent, abs=1e-6)
        counts = self.ledger.counts
        assert all(count > 0 for count in counts.values()), counts
        tokens = sum(n for name, n in counts.items() if name.startswith("tokens/") and name != "tokens/cancelled")
        assert tokens == self.tokens
        updates = self.coordinator.updates
        behind = [
            group.index
            for version in sorted(self.history)
            if version < updates
            for group in self.history[version].groups
        ]
        assert len(behind) == len(set(behind)) == updates * self.schedule.per_update
        cursor = self.coordinator._production.cursor
        done = {*range(cursor.next_unused), *cursor.used}
        assert set(behind) <= done
        rested = counts.get("groups/rested", 0)
        for index in done - set(behind):
            outcome = self._outcome(index)
            assert outcome == "failed" or (outcome == "barren" and self.schedule.refill) or rested


@pytest.fixture(autouse=True)
def disk_without_waiting() -> Iterator[None]:
    """Nothing here is about power cuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def carry_out(schedule: Schedule) -> None:
    with TemporaryDirectory() as folder:
        trial = Trial(Path(folder), schedule)
        for crash in schedule.crashes:
            if trial.go(crash, None) or trial.spent >= schedule.budget:
                return
        trial.go(None, schedule.stop)


@settings(max_examples=150, deadline=None)
@given(schedules)
def test_no_schedule_breaks_a_promise(schedule: Schedule) -> None:
    carry_out(schedule)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=3000, deadline=None)
@given(schedules)
def test_no_schedule_of_thousands_breaks_a_promise(schedule: Schedule) -> None:
    carry_out(schedule)
