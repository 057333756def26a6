"""The coordinator's logic with fakes at its seams, under virtual time; files are real."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.budget import Budget
from actors.coordinator import Coordinator
from actors.ledger import Ledger
from actors.messages import Batch, Group, Scores, Status, UpdateStats
from actors.outcome import Halted, Interrupted, Outcome, root_cause
from actors.protocols import ActorDied
from actors.run_folder import RunFolder
from actors.slots import AdapterSlots
from actors.virtual_time import VirtualClock, run_virtually
from conf.schema import Config
from rewards.problems import ProblemSet
from tests.fakes import FakeEngine, FakeLearner, FakeVerifier, make_problem, make_reward


def make_config(**learner: Any) -> Config:
    config = Config()
    config.learner.problems_per_update = 2
    config.rollout.samples_per_problem = 2
    config.eval.problems, config.eval.n = 4, 2
    config.canary.problems = 2
    config.checkpoint.every = 3
    for key, value in learner.items():
        setattr(config.learner, key, value)
    return config


def make_problems(train: int = 7, heldout: int = 4) -> ProblemSet:
    return ProblemSet(
        train=tuple(make_problem(number) for number in range(train)),
        heldout=tuple(make_problem(100 + number) for number in range(heldout)),
        dropped={},
    )


class Run:
    """A coordinator over fakes in a folder, run under virtual time."""

    def __init__(self, path: Path, config: Config | None = None, seconds: float = 120.0) -> None:
        self.path = path
        self.config = config or make_config()
        self.seconds = seconds
        self.engine = FakeEngine()
        self.learner = FakeLearner(max_staleness=self.config.learner.max_staleness)
        self.verifier = FakeVerifier()
        self.spent = 0.0

    def go(self, meanwhile: Callable[[Coordinator], Any] | None = None, resume: bool = False) -> Outcome:
        self.engine.slots = AdapterSlots(2)  # of a process of its own

        async def scenario() -> Outcome:
            clock = VirtualClock()
            folder = self.folder = RunFolder(self.path, keep_last=2)
            budget = Budget(self.seconds, folder.spent, clock)
            self.coordinator = Coordinator(
                self.config,
                self.engine,
                self.learner,
                self.verifier,
                make_problems(heldout=self.config.eval.problems),
                folder,
                budget,
                Ledger(clock, folder.spent, folder.ledger()),
                clock,
                max_running=16,
                resume_from=folder.checkpoint if resume else None,
            )
            if meanwhile:
                meanwhile(self.coordinator)
            try:
                return await self.coordinator.run()
            finally:
                self.spent = budget.spent
                self.ledger = self.coordinator.ledger.seconds
                folder.write_spent(budget.spent, self.coordinator.ledger.record)

        return run_virtually(scenario())

    @property
    def spent_so_far(self) -> float:
        return self.seconds - self.coordinator.progress.left

    @property
    def rows(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_run_spends_its_budget_and_not_more(run: Run) -> None:
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert run.spent <= run.seconds
    assert run.spent > 0.8 * run.seconds
    assert run.coordinator.base is not None
    assert outcome.final is not None
    assert outcome.final["n"] == 2
    assert outcome.final["pass@1"] == 1.0


def test_start_of_the_engine_is_no_part_of_the_first_evaluation(run: Run) -> None:
    """A slow start neither cuts the evaluation of the base model short nor enlarges the reserve for the last one."""
    run.engine.start_seconds = 0.5 * run.seconds
    run.go()
    assert run.coordinator.base is not None
    assert run.coordinator.base["n"] == 2
    assert run.spent > 0.8 * run.seconds


def test_run_stops_at_the_updates_asked_for(run: Run) -> None:
    run.config.budget.updates = 5
    outcome = run.go()
    assert (outcome.status, run.learner.version) == ("completed", 5)
    assert [row["update"] for row in run.rows] == [1, 2, 3, 4, 5]


def test_no_group_is_started_that_no_update_would_take(run: Run) -> None:
    run.config.budget.updates = 5
    run.go()
    assert sorted(index for index, _ in run.engine.served) == list(range(10))


def test_nothing_is_started_or_waited_for_that_cannot_end_in_time(run: Run) -> None:
    """Groups of 30 s: training ends when the next batch could not be learned from, and the rest is not idled away."""
    run.config.learner.max_staleness = 0
    run.config.eval.problems = 0
    run.engine.seconds_of = lambda index: 30.0 if index >= 0 else 1.0
    run.go()
    assert run.learner.version == 3
    assert len(run.engine.served) == 6
    assert run.spent < 100.0


def test_last_policy_is_judged_on_fewer_problems_where_not_one_round_fits(run: Run) -> None:
    """The trained policy answers so slowly that a round of four, one at a time, would take longer than is left."""
    run.config.eval.n = 1
    run.engine.most_at_once = 1
    generate = run.engine.generate

    async def slower(index: int, problem: Any, adapter: Any, sampling: Any) -> Group:
        run.engine.seconds = 5.0 if sampling.samples == 1 and adapter and adapter.version and index >= 0 else 1.0
        return await generate(index, problem, adapter, sampling)

    run.engine.generate = slower  # type: ignore[method-assign]
    outcome = run.go()
    assert outcome.final is not None
    assert outcome.final["n"] == 1
    assert 1 <= outcome.final["problems"] < 4
    assert run.spent <= run.seconds


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_every_group_is_young_enough_and_recorded_with_its_version(tmp_path: Path, staleness: int) -> None:
    run = Run(tmp_path, make_config(max_staleness=staleness))
    run.engine.seconds_of = lambda index: 1.0 + 7.0 * (index % 5 == 0)
    run.go()
    names = dict(run.engine.served)
    used = [group for batch in run.learner.batches for group in batch.groups]
    assert len(run.learner.batches) > 5
    assert all(names[group.index] == f"policy-v{group.version}-r0" for group in used)
    ages = {batch.version - group.version for batch in run.learner.batches for group in batch.groups}
    assert max(ages) <= staleness


def test_generation_goes_on_while_the_learner_works(run: Run) -> None:
    """Groups of 1 s and updates of 2 s: overlapped, an update every 2 s and a bit; in turn it would be over 3 s."""
    run.config.budget.updates = 20
    run.go()
    learner = run.ledger["learner"]
    assert learner["wait_rollouts"] < 0.3 * learner["update"]


def test_checkpoints_are_periodic_final_and_few(run: Run) -> None:
    run.config.budget.updates = 7
    run.go()
    kept = sorted(p.name for p in (run.path / "checkpoints").glob("update-*"))
    assert kept == ["update-000006", "update-000007"]
    assert (run.path / "checkpoints" / "latest").resolve().name == "update-000007"


def test_stop_ends_the_run_with_a_checkpoint(run: Run) -> None:
    def stop_later(coordinator: Coordinator) -> None:
        asyncio.get_running_loop().call_later(30.0, coordinator.stop, "SIGTERM")

    outcome = run.go(stop_later)
    assert (outcome.status, outcome.reason, outcome.final) == ("interrupted", "SIGTERM", None)
    assert (run.path / "checkpoints" / "latest").resolve().name == f"update-{run.learner.version:06d}"
    assert 30.0 <= run.spent < 30.0 + run.config.budget.grace_s


def test_stop_during_the_first_evaluation_leaves_at_once(run: Run) -> None:
    run.engine.seconds = 1000.0
    run.seconds = 100_000.0

    def stop_later(coordinator: Coordinator) -> None:
        asyncio.get_running_loop().call_later(30.0, coordinator.stop, "SIGINT")

    assert run.go(stop_later).status == "interrupted"
    assert run.spent < 40.0


def test_update_longer_than_the_grace_is_abandoned(run: Run) -> None:
    run.learner.seconds = 10_000.0
    run.seconds = 100_000.0

    def stop_later(coordinator: Coordinator) -> None:
        asyncio.get_running_loop().call_later(100.0, coordinator.stop, "SIGTERM")

    with pytest.raises(ExceptionGroup) as caught:
        run.go(stop_later)
    assert isinstance(root_cause(caught.value), Interrupted)
    assert run.spent < 100.0 + run.config.budget.grace_s + 5.0


def test_first_update_that_outlasts_the_budget_is_lost_and_the_budget_kept(run: Run) -> None:
    run.learner.seconds = 10_000.0
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert "did not finish in time" in outcome.reason
    assert outcome.final is not None
    assert run.spent <= run.seconds


def test_slow_evaluation_of_the_base_model_leaves_time_to_train(run: Run) -> None:
    """Twice what it took would be more than all of the budget."""
    run.engine.seconds = 8.0
    run.config.eval.n = 10
    outcome = run.go()
    assert run.learner.version >= 2
    assert outcome.reason == "no further update fits"
    assert outcome.final is not None
    assert run.spent <= run.seconds


def test_version_behind_an_update_that_waits_for_an_engine_at_the_end_is_saved(run: Run) -> None:
    """The learner is idle meanwhile: what was learned before is not lost with the update."""

    class Silent(FakeEngine):
        async def probe(self, *arguments: Any) -> tuple[Group, ...]:
            if run.spent_so_far > 0.6 * run.seconds:
                await asyncio.sleep(run.seconds)
            return await super().probe(*arguments)

    run.engine = Silent()
    run.config.checkpoint.every = 1000
    outcome = run.go()
    assert outcome.reason == "the last update did not finish in time and is lost"
    assert run.folder.checkpoint is not None
    assert run.folder.checkpoint.name == f"update-{run.coordinator.updates:06d}"
    assert run.coordinator.updates > 5
    assert run.spent <= run.seconds


def test_waiting_for_stragglers_has_a_name(run: Run) -> None:
    class Uneven(FakeEngine):
        def seconds_of(self, index: int) -> float:
            return 20.0 if index % 8 == 0 else 0.5

    run.engine = Uneven()
    run.go()
    assert run.ledger["learner"]["wait_stragglers"] > 10.0


def test_start_that_outlasts_the_budget_ends_the_run(run: Run) -> None:
    run.engine.start_seconds = 10_000.0
    assert run.go().status == "budget_exhausted"
    assert run.spent <= run.seconds


def test_resumed_run_repeats_and_skips_no_problem(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.config.budget.updates = 4
    first.go()
    second = Run(tmp_path)
    second.config.budget.updates = 9
    second.go(resume=True)
    used = [g.index for run in (first, second) for batch in run.learner.batches for g in batch.groups]
    assert sorted(used) == list(range(len(used)))
    assert len(used) == 18
    assert [row["update"] for row in second.rows] == list(range(1, 10))
    assert second.learner.incarnation == 1


DEATHS = [("publish", 0), ("score", 0), ("accumulate", 0), ("step", 1), ("score", 2), ("accumulate", 4), ("save", 3)]


def history(run: Run) -> list[int]:
    """Indices of the groups behind the learner's adapter, in order of their updates."""
    last: dict[int, Batch] = {batch.version: batch for batch in run.learner.batches}
    return [group.index for version in range(run.learner.version) for group in last[version].groups]


@pytest.mark.parametrize("death", DEATHS)
def test_learner_that_dies_goes_on_from_the_last_checkpoint(run: Run, death: tuple[str, int]) -> None:
    """Wherever it dies: nothing of the abandoned history is trained on, no problem is skipped or repeated."""
    run.learner.deaths = {death}
    run.config.budget.updates = 7
    assert run.go().status == "completed"
    assert not run.learner.deaths
    assert sorted(history(run)) == list(range(14))
    assert [row["update"] for row in run.rows] == list(range(1, 8))
    assert run.learner.incarnation == 1
    assert run.coordinator.ledger.counts["deaths/learner"] == 1
    assert [event["event"] for event in run.folder.events()] == ["learner died"]


def test_dead_learner_costs_the_updates_since_the_checkpoint_and_what_is_under_way(run: Run) -> None:
    run.learner.deaths = {("step", 4)}
    run.config.budget.updates = 7
    run.go()
    counts = run.coordinator.ledger.counts
    assert counts["updates/abandoned"] == 1
    assert 2 + 2 <= counts["groups/abandoned"] <= 2 + 2 * 2  # those of one update, and at most η + 1 batches ahead
    assert [batch.version for batch in run.learner.batches] == [0, 1, 2, 3, 3, 4, 5, 6]


def test_learner_that_dies_while_it_is_restored_is_revived_again(run: Run) -> None:
    run.learner.deaths = {("accumulate", 4), ("restore", 0)}
    run.config.budget.updates = 5
    assert run.go().status == "completed"
    assert run.learner.incarnation == 2
    assert sorted(history(run)) == list(range(10))


def test_learner_that_dies_too_often_fails_the_run_with_its_cause(run: Run) -> None:
    async def give_up() -> None:
        raise ActorDied("learner-0 has died 3 times")

    run.learner.deaths = {("accumulate", 1)}
    run.learner.revive = give_up  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert str(root_cause(caught.value)) == "learner-0 has died 3 times"


@pytest.mark.parametrize("call", ["save", "score"])
def test_learner_that_dies_at_the_end_leaves_the_last_checkpoint_to_be_judged(run: Run, call: str) -> None:
    run.learner.deaths = {(call, 5 if call == "save" else 6)}
    run.config.budget.updates = 5 if call == "save" else 6
    run.config.checkpoint.every = 3
    outcome = run.go()
    assert outcome.final is not None
    assert run.coordinator.updates == len(run.rows) == (3 if call == "save" else 6)
    assert (run.path / "checkpoints" / "latest").resolve().name == f"update-{run.coordinator.updates:06d}"


def test_revival_that_takes_too_long_does_not_break_the_budget(run: Run) -> None:
    async def revive() -> None:
        await asyncio.sleep(10_000.0)

    run.learner.deaths = {("accumulate", 4)}
    run.learner.revive = revive  # type: ignore[method-assign]
    outcome = run.go()
    assert outcome.status == "budget_exhausted"
    assert outcome.final is not None
    assert run.spent <= run.seconds


def test_stop_does_not_wait_for_a_revival(run: Run) -> None:
    async def revive() -> None:
        await asyncio.sleep(10_000.0)

    run.seconds = 100_000.0
    run.learner.deaths = {("accumulate", 4)}
    run.learner.revive = revive  # type: ignore[method-assign]

    def stop_later(coordinator: Coordinator) -> None:
        asyncio.get_running_loop().call_later(30.0, coordinator.stop, "SIGTERM")

    assert run.go(stop_later).status == "interrupted"
    assert run.spent < 31.0
    assert run.coordinator.updates == 3


def test_engine_that_could_not_be_healed_fails_the_run(run: Run) -> None:
    async def die(*_: object) -> Group:
        raise ActorDied("rollout-0 has died 3 times")

    generate = run.engine.generate

    async def late(index: int, *rest: Any) -> Group:
        return await (die() if index == 9 else generate(index, *rest))

    run.engine.generate = late  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert str(root_cause(caught.value)) == "rollout-0 has died 3 times"


def collapse(run: Run, versions: range) -> None:
    """The learner reports entropies that fall to nothing in the updates that make these versions, the first time."""
    step = run.learner.step
    seen: set[int] = set()

    async def report(progress: float) -> UpdateStats:
        stats = await step(progress)
        version = stats.adapter.version
        fallen = version in versions and version not in seen
        seen.add(version)
        return replace(stats, metrics={"policy/entropy": 0.01 if fallen else 1.5})

    run.learner.step = report  # type: ignore[method-assign]
    run.config.guard.window = 8


def test_collapse_is_reported_and_the_run_goes_on(run: Run) -> None:
    collapse(run, range(12, 100))
    run.config.budget.updates = 16
    assert run.go().status == "completed"
    assert [row["update"] for row in run.rows if row["guard/alarms"]] == [13]
    (event,) = run.folder.events()
    assert (event["update"], event["event"]) == (13, "collapse")
    assert "policy/entropy went from 1.5 to 0.01" in event["detail"]


def test_collapse_halts_where_asked_for(run: Run) -> None:
    collapse(run, range(12, 100))
    run.config.guard.action = "stop"
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert isinstance(root_cause(caught.value), Halted)
    assert "policy/entropy went from 1.5 to 0.01" in str(root_cause(caught.value))
    assert run.learner.version == 13


def test_collapse_is_rolled_back_before_it_began_where_asked_for(run: Run) -> None:
    """Versions 12 and 13 collapse; checkpoints are 9 and 12, and the guard trusts nothing after 10."""
    seeds: dict[int, set[int]] = {}
    generate = run.engine.generate

    async def note(index: int, problem: Any, adapter: Any, sampling: Any) -> Group:
        if sampling.samples > 1:
            seeds.setdefault(index, set()).add(sampling.seed)
        return await generate(index, problem, adapter, sampling)

    run.engine.generate = note  # type: ignore[method-assign]
    collapse(run, range(12, 14))
    run.config.guard.action = "rollback"
    run.config.budget.updates = 15
    assert run.go().status == "completed"
    assert [batch.version for batch in run.learner.batches] == [*range(13), *range(9, 15)]
    assert sorted(history(run)) == list(range(30))
    assert [row["update"] for row in run.rows] == list(range(1, 16))
    assert [event["event"] for event in run.folder.events()] == ["collapse, rolled back"]
    assert all(len(seeds[index]) == 2 for index in range(18, 26)), "drawn again, other samples are wanted"
    assert run.coordinator.ledger.counts["updates/abandoned"] == 4


def test_collapse_that_comes_back_halts_the_run(run: Run) -> None:
    run.config.guard.rollbacks = 0
    run.config.guard.action = "rollback"
    collapse(run, range(12, 100))
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "the policy collapses" in str(root_cause(caught.value))


def test_best_checkpoint_by_validation_is_kept(run: Run) -> None:
    """Version 4 solves all problems, the others half of them."""
    run.config.validation.every, run.config.validation.problems, run.config.validation.share = 2, 2, 1.0
    run.config.budget.updates = 10
    run.config.checkpoint.every = 5

    async def score(group: Group) -> Group:
        if len(group.samples) > 1:
            return await FakeVerifier().score(group)
        best = group.adapter is not None and group.adapter.version == 4
        return await _judge(group, float(best or group.index % 2))

    run.verifier.score = score  # type: ignore[method-assign]
    run.go()
    validated = {row["update"]: row["validation/pass@1"] for row in run.rows if "validation/pass@1" in row}
    assert validated == {2: 0.5, 4: 1.0, 6: 0.5, 8: 0.5, 10: 0.5}
    assert run.coordinator.base is not None
    assert run.coordinator.base["validation/pass@1"] == 0.5
    kept = sorted(p.name for p in (run.path / "checkpoints").glob("update-*"))
    assert kept == ["update-000004", "update-000005", "update-000010"]
    assert run.folder.best == run.path.resolve() / "checkpoints" / "update-000004"
    assert run.ledger["learner"]["validate"] > 0


def test_validations_take_no_more_than_their_share(run: Run) -> None:
    """Each takes 10 s, half as much again as the update it follows."""
    run.seconds = 1000.0
    run.config.validation.every, run.config.validation.share = 1, 0.1
    generate = run.engine.generate

    async def slow(index: int, problem: Any, adapter: Any, sampling: Any) -> Group:
        if sampling.samples == 1 and index >= 0:
            await asyncio.sleep(10.0)
        return await generate(index, problem, adapter, sampling)

    run.engine.generate = slow  # type: ignore[method-assign]
    run.go()
    assert sum("validation/pass@1" in row for row in run.rows) >= 3
    assert run.ledger["learner"]["validate"] <= 0.1 * run.spent


def note_overlap(run: Run) -> list[tuple[int, bool]]:
    """At the end of every request for a group: its index, and whether the learner was at work meanwhile."""
    busy = 0
    seen = []
    accumulate, work = run.learner.accumulate, run.engine._work

    async def learn(batch: Batch) -> None:
        nonlocal busy
        busy += 1
        await accumulate(batch)
        busy -= 1

    async def note(seconds: float) -> None:
        before = busy
        await work(seconds)
        seen.append((run.learner.version, bool(before or busy)))

    run.learner.accumulate, run.engine._work = learn, note  # type: ignore[method-assign]
    return seen


def test_in_turns_nothing_is_generated_while_the_learner_works(run: Run) -> None:
    run.config.learner.overlap = "off"
    run.config.budget.updates = 8
    seen = note_overlap(run)
    run.go()
    assert not any(overlapped for _, overlapped in seen)
    assert all(row["overlap"] == 0.0 for row in run.rows)
    assert all(g.version == batch.version for batch in run.learner.batches for g in batch.groups)
    assert (run.engine.whole, run.learner.whole) == (True, True)


@pytest.mark.parametrize(("in_turns_faster", "last"), [(False, 1.0), (True, 0.0)])
def test_faster_way_is_measured_and_kept_over_a_resume(tmp_path: Path, in_turns_faster: bool, last: float) -> None:
    """With the whole machine, each is a little faster here and three times as fast there."""
    speed = 3.0 if in_turns_faster else 1.1
    for updates in (20, 24):
        run = Run(tmp_path, seconds=1000.0)
        run.config.learner.overlap = "auto"
        run.config.budget.updates = updates
        engine, accumulate = run.engine, run.learner.accumulate
        engine.seconds_of = lambda _, engine=engine: 3.0 / (speed if engine.whole else 1.0)

        async def learn(batch: Batch, run: Run = run, accumulate: Any = accumulate) -> None:
            run.learner.seconds = 3.0 / (speed if run.learner.whole else 1.0)
            await accumulate(batch)

        run.learner.accumulate = learn  # type: ignore[method-assign]
        assert run.go(resume=updates == 24).status == "completed"
        modes = [row["overlap"] for row in run.rows]
        assert modes == [0.0] * 5 + [1.0] * 5 + [last] * (updates - 10)
        ages = {batch.version - group.version for batch in run.learner.batches for group in batch.groups}
        assert ages <= {0, 1}
        assert len([event for event in run.folder.events() if event["event"] == "overlap"]) == 1


def test_second_stop_leaves_at_once_with_the_last_checkpoint(run: Run) -> None:
    run.seconds = 100_000.0
    run.learner.seconds = 30.0

    def stop_twice(coordinator: Coordinator) -> None:
        asyncio.get_running_loop().call_later(200.0, coordinator.stop, "SIGTERM")
        asyncio.get_running_loop().call_later(201.0, coordinator.stop, "SIGTERM")

    with pytest.raises(ExceptionGroup) as caught:
        run.go(stop_twice)
    assert isinstance(root_cause(caught.value), Interrupted)
    assert run.spent < 202.0
    assert (run.path / "checkpoints" / "latest").resolve().name == "update-000006"


def test_base_model_is_judged_once_over_all_resumes(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.config.budget.updates = 4
    first.go()
    second = Run(tmp_path)
    second.config.budget.updates = 5
    second.go(resume=True)
    assert second.coordinator.base == first.coordinator.base
    probed = 4
    assert (first.engine.base_samples, second.engine.base_samples) == (8 + probed, 0)


def test_time_before_a_resume_counts(tmp_path: Path) -> None:
    first = Run(tmp_path, seconds=100.0)
    first.config.budget.updates = 4
    first.go()
    second = Run(tmp_path, seconds=100.0)
    second.go(resume=True)
    assert second.spent <= 100.0
    assert len(second.rows) < 100.0 / 2.0


def test_wrong_adapter_in_the_rollouts_halts_the_run(run: Run) -> None:
    run.engine.logprob = -3.0
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert isinstance(root_cause(caught.value), Halted)
    assert "log-probabilities of the rollouts differ" in str(root_cause(caught.value))


def test_every_version_is_vouched_for_before_the_next_is_made(run: Run) -> None:
    run.config.budget.updates = 6
    run.go()
    assert [(version, adapter and adapter.version) for version, adapter in run.learner.scored] == [
        (version, version) for version in range(7)
    ]


def test_wrong_version_in_the_rollouts_halts_before_the_next_step(run: Run) -> None:
    """From version 3 on, the engine's answers are not those of the learner's weights."""
    score = run.learner.score

    async def disagree(groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        scores = await score(groups)
        return (
            tuple(tuple(Scores((-3.0,), (-1.0,)) for _ in row) for row in scores)
            if run.learner.version >= 3
            else scores
        )

    run.learner.score = disagree  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert isinstance(root_cause(caught.value), Halted)
    assert run.learner.version == 3


def test_rewards_without_variance_halt_the_run(run: Run) -> None:
    run.config.rollout.samples_per_problem = 1
    run.verifier.score = lambda group: _judge(group, 0.0)  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "nothing can be learned" in str(root_cause(caught.value))


def test_group_that_is_all_right_does_not_make_the_others_so(run: Run) -> None:
    """One solved problem among unsolved ones: nothing can be learned, and that is no success."""
    run.verifier.score = lambda group: _judge(group, float(group.index % 8 == 7))  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "nothing can be learned" in str(root_cause(caught.value))


def test_groups_without_variance_are_replaced_where_asked_for(run: Run) -> None:
    """Every second problem is always solved: batches are made of the others, and none comes up twice."""
    run.config.learner.refill = True
    run.config.budget.updates = 5
    run.verifier.score = lambda group: _judge_each(group, (1.0, float(group.index % 2)))  # type: ignore[method-assign]
    assert run.go().status == "completed"
    used = [group.index for batch in run.learner.batches for group in batch.groups]
    assert used == [2 * number for number in range(10)]
    assert run.coordinator.ledger.counts["groups/refilled"] >= 9
    assert all(row["groups/zero_variance"] == 0.0 for row in run.rows)
    state = json.loads((run.path / "checkpoints" / "latest" / "coordinator.json").read_text())
    assert state["next_unused"] >= 19


def test_refill_halts_too_when_nothing_can_be_learned(run: Run) -> None:
    run.config.learner.refill = True
    run.verifier.score = lambda group: _judge(group, 0.0)  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "all samples of a problem earned the same" in str(root_cause(caught.value))
    assert run.learner.version == 0


def test_groups_that_could_not_be_judged_give_their_capacity_back(run: Run) -> None:
    async def score(group: Group) -> Group:
        timeout = make_reward(0.0, Status.TIMEOUT)
        judged = await FakeVerifier().score(group)
        return replace(group, rewards=(timeout, timeout)) if group.index % 3 == 0 else judged

    run.verifier.score = score  # type: ignore[method-assign]
    run.config.budget.updates = 5
    run.config.eval.problems = 0
    assert run.go().status == "completed"
    assert all(group.index % 3 for batch in run.learner.batches for group in batch.groups)
    assert run.coordinator.ledger.counts["tokens/failed"] == 2 * run.coordinator.ledger.counts["groups/failed"] > 0


def test_verifier_that_judges_nothing_halts_the_run(run: Run) -> None:
    async def score(group: Group) -> Group:
        return replace(group, rewards=(make_reward(0.0, Status.CRASH),) * len(group.samples))

    run.verifier.score = score  # type: ignore[method-assign]
    run.config.eval.problems = 0
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "no answer could be judged" in str(root_cause(caught.value))


def test_settled_problems_rest(run: Run) -> None:
    """Seven problems, three of which are always solved: in epochs 1 and 2 only the other four come up."""
    run.config.curriculum.rest_epochs = 2
    run.config.learner.max_staleness, run.config.learner.problems_per_update = 0, 1
    run.config.budget.updates = 15
    settled = {"p0", "p1", "p2"}
    run.verifier.score = lambda group: _judge_each(group, (1.0, float(group.problem.id in settled)))  # type: ignore[method-assign]
    run.go()
    groups = sorted((g for batch in run.learner.batches for g in batch.groups), key=lambda group: group.index)
    assert {group.problem.id for group in groups[:7]} == {f"p{number}" for number in range(7)}
    assert not settled & {group.problem.id for group in groups[7:15]}
    assert run.coordinator.ledger.counts["groups/rested"] >= 6


@pytest.mark.parametrize("death", [None, ("accumulate", 4)])
def test_ledger_accounts_for_every_second_and_token_over_a_resume(tmp_path: Path, death: Any) -> None:
    drawn = 0
    for updates in (4, 9):
        run = Run(tmp_path)
        run.config.budget.updates = updates
        run.learner.deaths = {death} if death else set()
        run.go(resume=updates == 9)
        drawn += run.engine.tokens
        record = run.coordinator.ledger
        for activities in run.ledger.values():
            assert sum(activities.values()) == pytest.approx(run.spent)
        tokens = {name: count for name, count in record.counts.items() if name.startswith("tokens/")}
        assert sum(tokens.values()) - tokens.get("tokens/cancelled", 0) == drawn
        assert tokens["tokens/useful"] == 2 * 2 * updates
    assert {"tokens/eval", "tokens/canary"} <= tokens.keys()
    assert ("tokens/abandoned" in tokens) == (death is not None)


def test_checkpoint_that_takes_too_long_does_not_break_the_budget(run: Run) -> None:
    async def save(_: str) -> None:
        await asyncio.sleep(10_000.0)

    run.learner.save = save  # type: ignore[method-assign]
    run.config.checkpoint.every = 1000
    assert run.go().status == "budget_exhausted"
    assert run.spent <= run.seconds


def test_all_steps_after_a_stop_share_one_grace(run: Run) -> None:
    """Update and checkpoint that take most of the grace each: the second is given up."""
    run.seconds = 100_000.0
    run.config.budget.grace_s = 60.0
    run.learner.seconds = 55.0

    async def save(_: str) -> None:
        await asyncio.sleep(50.0)

    run.learner.save = save  # type: ignore[method-assign]

    def stop_later(coordinator: Coordinator) -> None:
        asyncio.get_running_loop().call_later(20.0, coordinator.stop, "SIGTERM")

    with pytest.raises(ExceptionGroup) as caught:
        run.go(stop_later)
    assert isinstance(root_cause(caught.value), Interrupted)
    assert run.spent <= 20.0 + 60.0


def test_run_with_every_answer_right_is_complete(run: Run) -> None:
    run.verifier.score = lambda group: _judge(group, 1.0)  # type: ignore[method-assign]
    outcome = run.go()
    assert outcome.status == "completed"
    assert "nothing is left to learn" in outcome.reason


def test_failure_of_an_actor_is_not_swallowed(run: Run) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the card fell off the bus")

    run.learner.accumulate = fail  # type: ignore[assignment]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert str(root_cause(caught.value)) == "the card fell off the bus"


def test_metrics_have_the_names_of_the_contract(run: Run) -> None:
    run.config.budget.updates = 1
    run.go()
    promised = {
        "update", "version", "reward/mean", "reward/accuracy", "reward/format", "completion/mean_length",
        "completion/truncated", "policy/kl_to_base", "groups/zero_variance", "time/generate", "time/verify",
        "time/learn", "time/sync", "budget/spent_s", "budget/left_s", "tokens/generated", "verify/timeout",
    }  # fmt: skip
    assert promised <= run.rows[0].keys()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    staleness=st.integers(0, 2),
    generate=st.lists(st.floats(0.1, 30.0), min_size=3, max_size=7),
    learn=st.floats(0.1, 20.0),
    budget=st.floats(60.0, 600.0),
)
def test_no_timing_breaks_age_budget_or_progress(
    tmp_path_factory: pytest.TempPathFactory, staleness: int, generate: list[float], learn: float, budget: float
) -> None:
    run = Run(tmp_path_factory.mktemp("run"), make_config(max_staleness=staleness), budget)
    run.engine.seconds_of = lambda index: generate[index % len(generate)]
    run.learner.seconds = learn
    run.go()
    assert run.spent <= budget
    used = sorted(group.index for batch in run.learner.batches for group in batch.groups)
    assert len(used) == len(set(used))


async def _judge(group: Any, score: float) -> Any:
    return replace(group, rewards=tuple(make_reward(score) for _ in group.samples))


async def _judge_each(group: Any, scores: tuple[float, ...]) -> Any:
    """The same scores for every group of training; evaluations have groups of one."""
    return replace(group, rewards=tuple(make_reward(score) for score in scores[: len(group.samples)]))


def report_faults(run: Run, versions: set[int]) -> None:
    """The learner skips the updates that make these versions."""
    step = run.learner.step

    async def faulty(progress: float) -> UpdateStats:
        stats = await step(progress)
        return replace(stats, fault="the loss is nan" if stats.adapter.version in versions else "")

    run.learner.step = faulty  # type: ignore[method-assign]


def test_skipped_updates_are_counted_and_their_samples_kept(run: Run) -> None:
    report_faults(run, {2, 3, 5, 6})
    run.config.budget.updates = 7
    assert run.go().status == "completed"
    assert run.coordinator.ledger.counts["updates/skipped"] == 4
    kept = sorted(path.name for path in (run.path / "samples").glob("skipped-*"))
    assert kept == [f"skipped-{update:06d}.jsonl" for update in (2, 3, 5, 6)]


def test_three_skipped_updates_in_a_row_halt_the_run(run: Run) -> None:
    report_faults(run, {2, 3, 4})
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    cause = root_cause(caught.value)
    assert isinstance(cause, Halted)
    assert "the loss is nan" in str(cause)
    assert run.learner.version == 4


def test_kl_in_the_loss_is_reported_instead_of_the_probes(run: Run) -> None:
    step = run.learner.step

    async def with_kl(progress: float) -> UpdateStats:
        stats = await step(progress)
        return replace(stats, metrics={"policy/kl_to_base": 0.125})

    run.learner.step = with_kl  # type: ignore[method-assign]
    run.config.budget.updates = 1
    run.go()
    assert run.rows[0]["policy/kl_to_base"] == 0.125
