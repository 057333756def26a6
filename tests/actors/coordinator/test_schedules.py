"""Whole runs under random schedules of slow and fruitless groups, collapses, stops, and crashes of every actor.

In all of them no group is used too stale or by another history (the fake learner asserts it), the budget is kept,
nothing waits for ever (the virtual clock raises Deadlock), no problem is skipped or repeated in the history behind the
adapter, and every second and token is accounted for.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.context import result_of
from microbudget_rl.actors.coordinator.coordinator import Coordinator
from microbudget_rl.actors.coordinator.rules.learning import TRANSITIONS, LearnerLifecycle, LearnerState
from microbudget_rl.actors.coordinator.rules.selection import SCORE
from microbudget_rl.actors.coordinator.warm_start import step_order
from microbudget_rl.actors.errors import ActorDied, Halted, Interrupted, root_cause
from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Request, Reward, Status
from microbudget_rl.actors.models.sizes import adapter_slots
from microbudget_rl.actors.protocols import Engine
from microbudget_rl.actors.rollout.pool import EnginePool
from microbudget_rl.actors.storage.checkpoints import read_state, version_of
from microbudget_rl.actors.storage.documents import CoordinatorState, LedgerRecord
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.rewards.actor import RemoteVerifier
from tests.actors.virtual_run import collapsing, make_config, make_context, make_problems, with_candidates
from tests.fakes import FakeLearner, FrailEngine, FrailVerifier, make_reward
from tests.virtual_time import VirtualClock, run_virtually

pytestmark = pytest.mark.long

CALLS = ("publish_synthetic", "explain", "publish", "score", "accumulate", "step", "save", "restore")
CALLS += ("imitate",)
GRACE_S = 10.0
LONG_S = 1000.0


def frail(most: int) -> st.SearchStrategy[tuple[tuple[float, ...], ...]]:
    """When each of at most so many actors crashes."""
    deaths = st.lists(st.floats(0.0, 150.0), max_size=3).map(tuple)
    return st.lists(deaths, min_size=1, max_size=most).map(tuple)


schedules = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),  # of every duration and outcome
        "staleness": st.integers(0, 3),
        "per_update": st.integers(1, 4),
        "max_running": st.integers(1, 12),
        "refill": st.booleans(),
        "fruitless": st.floats(0.0, 0.6),  # fraction of groups
        "failed": st.sampled_from((0.0, 0.2)),  # fraction of groups
        "call": st.floats(0.0, 5.0),
        "load": st.floats(0.0, 10.0),
        "learn": st.floats(0.1, 20.0),
        "save": st.floats(0.0, 8.0),
        "budget": st.floats(20.0, 300.0),
        "updates": st.none() | st.integers(1, 30),
        "every": st.integers(1, 6),
        "validate": st.integers(0, 3),
        "patience": st.sampled_from((0, 0, 2)),
        "deaths": st.frozensets(st.tuples(st.sampled_from(CALLS), st.integers(0, 12)), max_size=4),
        "engines": frail(3),
        "verifiers": frail(2),
        "collapses": st.frozensets(st.integers(5, 12), max_size=3),  # versions whose entropy is gone, once
        "crashes": st.lists(st.floats(1.0, 150.0), max_size=2).map(tuple),
        "stop": st.none() | st.floats(0.0, 200.0),
        "warm": st.sampled_from(("", "", "self", "file:solutions")),  # source of the warm start
    }
).map(lambda values: SimpleNamespace(**values))
"""Schedules of runs; times are seconds into a process. call: shortest time of a remote call. deaths: calls in which the
learner crashes, by name and version.
"""


class Tally:
    """An engine whose tokens are counted as they arrive."""

    def __init__(self, engine: Any, sampled: Counter[str]) -> None:
        self._engine = engine
        self._sampled = sampled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        def with_tally(name: str, engine: Any) -> Awaitable[None]:
            return work(name, Tally(engine, self._sampled))  # type: ignore[arg-type]

        await self._engine.at_start(with_tally)

    async def generate(self, request: Request) -> Group:
        group = await self._engine.generate(request)
        self._sampled["tokens"] += group.tokens
        return group

    async def generate_on_each(self, request: Request) -> tuple[Group, ...]:
        groups = await self._engine.generate_on_each(request)
        self._sampled["tokens"] += sum(group.tokens for group in groups)
        return groups


class Trial:
    """The processes of one run, one after the other."""

    def __init__(self, path: Path, schedule: SimpleNamespace) -> None:
        self.path = path
        self.schedule = schedule
        self.config = make_config(
            {
                "learner.max_staleness": schedule.staleness,
                "learner.problems_per_update": schedule.per_update,
                "learner.dynamic_sampling": schedule.refill,
                "budget.updates": schedule.updates,
                "budget.grace_s": GRACE_S,
                "checkpoint.every": schedule.every,
                "validation.every": schedule.validate,
                "validation.share": 0.5,
                "validation.patience": schedule.patience,
                "guard.action": "rollback",
                "guard.window": 4,
                "guard.patience": 1,
                "warm_start.source": schedule.warm,
                "warm_start.fraction": 0.5,
                "warm_start.demonstrations_per_update": 2,
            },
        )
        self.problems = with_candidates(make_problems(train=5, selection=2 if schedule.validate else 0), schedule.warm)
        self.deaths = set(schedule.deaths)
        self.collapses = set(schedule.collapses)
        self.transitions: set[tuple[LearnerState, LearnerState]] = set()
        self.history: dict[int, Batch] = {}
        self.published: set[str] = set()
        self.gone: set[str] = set()
        self.chosen = set[bool]()
        self.sampled = Counter[str]()
        self.written = 0
        self.spent = 0.0

    def go(self, crash: float | None, stop: float | None) -> bool:
        """Run one process; return whether the run has come to its end."""
        return run_virtually(self._process(crash, stop))

    async def _process(self, crash: float | None, stop: float | None) -> bool:
        schedule, folder, loop = self.schedule, self._folder(), asyncio.get_running_loop()
        slots = adapter_slots(self.config)
        engines = [FrailEngine(name=f"rollout-{number}", slots=slots) for number, _ in enumerate(schedule.engines)]
        workers = [FrailVerifier(f"reward-{number}") for number, _ in enumerate(schedule.verifiers)]
        for each in engines:
            each.seconds_of = self._seconds  # type: ignore[method-assign]
            each.load_seconds, each.gone = schedule.load, self.gone
        for worker in workers:
            worker.seconds_of, worker.rewards_of = self._verification, self._rewards
        learner = self.learner = self._learner()
        for remote in (*engines, *workers, learner):
            remote.call_seconds = schedule.call
        for actor, deaths in zip((*engines, *workers), (*schedule.engines, *schedule.verifiers), strict=True):
            for time in deaths:
                loop.call_later(time, actor.die)
        engine = EnginePool(engines, slots, VirtualClock(), lambda *_: None)
        verifier = RemoteVerifier(workers, VirtualClock(), lambda *_: None)  # type: ignore[arg-type]
        run = make_context(
            self.config,
            self.problems,
            folder,
            schedule.budget,
            Tally(engine, self.sampled),
            learner,
            verifier,
            schedule.max_running,
        )
        coordinator = Coordinator(run)
        self._watch(coordinator._lifecycle)
        if stop is not None:
            loop.call_later(stop, run.stopping.stop, "SIGTERM")
        ended = True
        try:
            async with asyncio.timeout(crash):
                await coordinator.run()
            self.check_result(folder, coordinator.updates)
        except TimeoutError:
            ended = False
        except ExceptionGroup as error:
            cause = root_cause(error)
            if isinstance(cause, ActorDied):
                pools = (engine._pool, verifier._pool)
                none_left = any(all(worker.given_up for worker in pool.workers) for pool in pools)
                assert none_left or coordinator.progress.phase == "starting"
            elif not isinstance(cause, Halted | Interrupted):
                raise
        if ended:
            folder.write_spent(run.budget.spent, run.ledger.record)
            await folder.flush()
            self.check_history(coordinator._producer.state)
            await self.check_slots(engine, coordinator)
        self.spent = folder.spent
        self.check(folder)
        return ended

    def _watch(self, lifecycle: LearnerLifecycle) -> None:
        """Note the transitions. One that is not in the table ends the run by a ValueError."""
        move = lifecycle.move

        def note(state: LearnerState) -> None:
            self.transitions.add((lifecycle.state, state))
            move(state)

        lifecycle.move = note  # type: ignore[method-assign]

    def _folder(self) -> RunFolder:
        """Return the folder. It notes the tokens at its last write of the time spent, and the versions it deletes."""
        folder = RunFolder(self.path)
        folder.recover()
        self.sampled["tokens"] = self.written
        write = folder.write_spent

        def note(seconds: float, record: LedgerRecord) -> None:
            write(seconds, record)
            self.written = self.sampled["tokens"]

        def drop(keep: tuple[AdapterRef, ...]) -> None:
            self.gone |= self.published - {adapter.name for adapter in keep}

        folder.write_spent, folder.drop_adapters = note, drop  # type: ignore[method-assign]
        return folder

    def _learner(self) -> FakeLearner:
        learner = FakeLearner(self.schedule.learn, self.schedule.staleness)
        learner.deaths = self.deaths
        step = learner.step

        async def note(rate: float) -> Any:
            stats = await step(rate)
            self.published.add(stats.adapter.name)
            self.gone.discard(stats.adapter.name)  # a process that begins anew gives the names of one before it again
            batch = learner.batches[-1]
            self.history = {v: b for v, b in self.history.items() if v < batch.version} | {batch.version: batch}
            return stats

        learner.step = note  # type: ignore[method-assign]
        learner.metrics_of, learner.save_seconds = collapsing(self.collapses), self.schedule.save
        return learner

    def _draw(self, purpose: str, index: int) -> random.Random:
        return random.Random(f"{self.schedule.seed}/{purpose}/{index}")

    def _seconds(self, index: int) -> float:
        return self._draw("seconds", index).choice((0.2, 1.0, 3.0, 15.0))

    def _outcome(self, index: int) -> str:
        draw = self._draw("outcome", index).random()
        if draw < self.schedule.failed:
            return "failed"
        return "fruitless" if draw < self.schedule.failed + self.schedule.fruitless else "useful"

    def _verification(self, group: Group) -> float:
        return self._draw("verify", group.index).choice((0.0, 0.1, 4.0))

    def _rewards(self, group: Group) -> tuple[Reward, ...]:
        if len(group.samples) == 1 and group.adapter:  # evaluations differ between versions
            return (make_reward(float(self._draw(f"solved/{group.version}", group.index).random() < 0.5)),)
        failed, wrong, right = make_reward(0.0, Status.TIMEOUT), make_reward(0.0), make_reward(1.0)
        rewards = {"failed": (failed, failed), "fruitless": (wrong, wrong), "useful": (right, wrong)}
        return rewards[self._outcome(group.index)]

    def check(self, folder: RunFolder) -> None:
        """Check the files."""
        assert self.spent <= self.schedule.budget
        record = folder.ledger()
        assert record is not None
        for activities in record.seconds.values():
            assert sum(activities.values()) == pytest.approx(self.spent, abs=1e-6)
        counts = record.counts
        assert all(count > 0 for count in counts.values()), counts
        self.check_lessons(folder)
        tokens = sum(n for name, n in counts.items() if name.startswith("tokens/") and name != "tokens/cancelled")
        assert tokens == self.written
        if folder.checkpoints.latest:
            self.check_history(read_state(folder.checkpoints.latest))

    def check_lessons(self, folder: RunFolder) -> None:
        """Check that the weights have learned what the run folder has, in the order that its seed gives."""
        names = [row.problem for row in folder.samples("warm-start") if row.token_ids]
        made = [step_order(len(names), 2, self.config.run.seed, step) for step in range(len(self.learner.lessons))]
        assert self.learner.lessons == [[names[place] for place in places] for places in made]
        if self.learner.version:
            assert self.learner.warmed == bool(self.schedule.warm)

    def check_result(self, folder: RunFolder, last: int) -> None:
        """Check that the result has a checkpoint, and that the evaluations are of the result and of the last policy."""
        if (result := result_of(folder)) is None:
            return
        kept = {version_of(checkpoint) for checkpoint in folder.checkpoints.all}
        validated = [row["update"] for row in folder.scored() if SCORE in row and row["update"] in kept]
        assert result.update in kept
        assert (result.validation is None) == (not validated)
        assert not validated or result.update in validated
        found = folder.evaluations()
        for name, scores, version in (("final", found.final, result.update), ("last", found.last, last)):
            if scores:
                assert {row.version for row in folder.samples(f"eval-{name}")} == {version}
        assert not found.last or last != result.update
        self.chosen.add(result.update != last)

    async def check_slots(self, pool: EnginePool, coordinator: Coordinator) -> None:
        """Check that no version but the policy, and the result that was loaded at the end, keeps its slot, once all
        that was cancelled has had time to end.

        A pool that has lost all its engines takes no version any more.
        """
        await asyncio.sleep(LONG_S)
        policy, result = coordinator._publisher.policy, result_of(coordinator._folder)
        others = pool._adapters.loaded_names - ({policy.name} if policy else set())
        loaded = result and f"policy-v{result.update}-"
        assert not pool.answers or all(loaded and name.startswith(loaded) for name in others)

    def check_history(self, state: CoordinatorState) -> None:
        """Check the history behind a version, with its cursor."""
        batches = [self.history[earlier] for earlier in sorted(self.history) if earlier < state.version]
        behind = [group.index for batch in batches for group in batch.groups]
        assert len(behind) == len(set(behind)) == state.version * self.schedule.per_update
        done = {*range(state.next_unused), *state.used}
        assert set(behind) <= done
        assert 0 <= state.dropped <= len(done - set(behind))
        for index in done - set(behind):
            outcome = self._outcome(index)
            assert outcome == "failed" or (outcome == "fruitless" and self.schedule.refill)


def carry_out(schedule: SimpleNamespace) -> Trial:
    with TemporaryDirectory() as folder:
        trial = Trial(Path(folder), schedule)
        for crash in schedule.crashes:
            if trial.go(crash, None) or trial.spent >= schedule.budget:
                return trial
        trial.go(None, schedule.stop)
    return trial


@given(schedules)
def test_no_schedule_breaks_a_promise(schedule: SimpleNamespace):
    carry_out(schedule)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=3000)
@given(schedules)
def test_no_schedule_of_thousands_breaks_a_promise(schedule: SimpleNamespace):
    carry_out(schedule)


def test_one_schedule_takes_every_transition_of_the_learner():
    """It crashes at its start, in a gradient, in a step and while it saves; the policy collapses after a checkpoint."""
    eventful = {
        **dict.fromkeys(("seed", "fruitless", "failed", "validate", "patience"), 0),
        "refill": False,
        "staleness": 1,
        **dict.fromkeys(("per_update", "every"), 2),
        "max_running": 8,
        **dict.fromkeys(("load", "save"), 0.1),
        "call": 0.01,
        "learn": 1.0,
        "budget": 300.0,
        "updates": 24,
        "deaths": {("publish", 0), ("accumulate", 1), ("step", 2), ("save", 4)},
        "engines": ((),),
        "verifiers": ((),),
        "collapses": {9},
        "crashes": (),
        "stop": None,
        "warm": "",
    }
    assert carry_out(SimpleNamespace(**eventful)).transitions == TRANSITIONS.keys()
