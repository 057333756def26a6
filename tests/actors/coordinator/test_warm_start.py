"""The warm start in whole runs over fakes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.coordinator.context import result_of
from actors.errors import Halted
from actors.messages import Group, Problem, Reward
from actors.storage.checkpoints import read_state
from actors.storage.documents import EventKind
from conf.settings import changed
from tests.actors.virtual_run import Run, make_config
from tests.fakes import make_reward

UPDATES = 3


class WarmRun(Run):
    """Seven candidates, whose prompts show examples, or as many solutions. One demonstration of each is learned, two
    per update.
    """

    def __init__(self, path: Path, source: str = "self", seconds: float = 200.0, **settings: Any) -> None:
        more = {"source": source, "per_problem": 1, "demonstrations_per_update": 2, "fraction": 0.5, **settings}
        config = changed(make_config(), {"budget.updates": UPDATES, **{f"warm_start.{k}": v for k, v in more.items()}})
        super().__init__(path, config, seconds)

    @property
    def learned(self) -> list[tuple[str, ...]]:
        return [tuple(each.problem.id for each in batch) for batch, _ in self.learner.imitated]


@pytest.fixture
def run(tmp_path: Path) -> WarmRun:
    return WarmRun(tmp_path)


def test_own_right_responses_are_learned_without_the_examples(run: WarmRun) -> None:
    outcome = run.go()
    assert outcome.status == "completed"
    batches = [batch for batch, _ in run.learner.imitated]
    assert [len(batch) for batch in batches] == [1, 2, 2, 2] * 3
    assert {each.problem.prompt for batch in batches for each in batch} == {p.prompt for p in run.problems.train}
    assert all(len({*run.learned[at : at + 4]}) == 4 for at in (0, 4, 8)), "each pass has every problem once"
    progress = [progress for _, progress in run.learner.imitated]
    assert progress == sorted(progress)
    assert progress[0] == 0.0
    assert len(run.rows) == UPDATES
    assert [row.update for row in run.folder.warm_start_rows()] == list(range(1, 13))
    evaluations = run.eval
    assert evaluations.base
    assert evaluations.warm
    assert {row.version for row in run.folder.samples("eval-warm")} == {0}
    kept = sorted(path.name for path in (run.path / "checkpoints").glob("update-*"))
    assert kept[0] == "update-000000"
    state = read_state(run.path / "checkpoints" / "update-000000")
    assert (state.imitated, state.warm_start_over) == (12, True)


def test_solutions_are_verified_and_the_unused_are_named(tmp_path: Path) -> None:
    run = WarmRun(tmp_path, "file:worked.jsonl")
    run.config = changed(run.config, {"rollout.max_response_tokens": 16})

    def rewards(group: Group) -> tuple[Reward, ...]:
        return (make_reward(float(group.problem.id != "p303")),) * 2

    run.verifier.rewards_of, run.learner.deaths = rewards, {("imitate", 0)}
    run.go()
    assert {problem for batch in run.learned for problem in batch} == {f"p{n}" for n in range(300, 307)} - {"p303"}
    assert all(each.token_ids[1:] == [8, 9] for batch, _ in run.learner.imitated for each in batch)
    died, event = run.folder.events()
    assert (died.kind, event.kind) == (EventKind.DIED, EventKind.IMITATED)
    assert "9 of 9 updates on 6 responses to 6 problems, loss 1.000 → 0.111; 1 of 7 " in event.detail
    assert "p303" in event.detail
    assert [row.problem for row in run.folder.samples("warm-start") if row.status != "correct"] == ["p303"]
    counts = run.coordinator.ledger.counts
    assert (counts["demonstrations/correct"], counts["demonstrations/wrong"]) == (6, 1)


@pytest.mark.parametrize("source", ["self", "file:worked.jsonl"])
def test_no_right_response_halts_the_run(tmp_path: Path, source: str) -> None:
    run = WarmRun(tmp_path, source)
    run.verifier.rewards_of = lambda _: (make_reward(0.0),) * 2
    cause = run.fail()
    assert isinstance(cause, Halted)
    assert "warm_start.source" in str(cause)
    assert not run.learner.imitated


def test_nothing_is_learned_twice_or_left_out_after_a_stop(tmp_path: Path) -> None:
    """A deterministic run that is stopped while it samples, while it imitates and later ends as if it had not been."""
    whole, parts = WarmRun(tmp_path / "whole", seconds=1e4), WarmRun(tmp_path / "parts", seconds=1e4)
    for run in (whole, parts):
        run.config = changed(run.config, {"run.deterministic": True, "learner.max_staleness": 0})
        run.engine.most_at_once = 1
        run.learner.seconds = 10.0
    whole.go()
    for seconds in (3.0, 12.0, 25.0, 70.0, 500.0):
        parts.learner.version = 0  # of a process of its own
        parts.go(seconds)
    assert parts.learner.lessons == whole.learner.lessons
    assert len(whole.learner.lessons) == 12
    assert [row.content for row in parts.folder.candidates()] == [row.content for row in whole.folder.candidates()]
    assert [row.content for row in parts.folder.warm_start_rows()] == [
        row.content for row in whole.folder.warm_start_rows()
    ]
    assert len(parts.learner.imitated) == 12, "a stop saves the work"


def test_its_time_is_bounded_and_split_between_sampling_and_learning(tmp_path: Path) -> None:
    run = WarmRun(tmp_path, fraction=0.2, seconds=300.0)
    run.engine.most_at_once = 1
    run.engine.seconds_of = lambda index: 10.0 if index >= 0 else 1.0  # type: ignore[method-assign]
    run.learner.seconds = 15.0
    run.config = changed(run.config, {"eval.n": 1})
    run.go()
    assert len(run.folder.candidates()) == 2
    assert len(run.learner.imitated) == 1
    assert run.ledger["learner"]["warm_start"] + run.ledger["rollouts"]["warm_start"] <= 0.2 * 300.0


def test_crashes_return_to_the_last_checkpoint_and_version_0_is_never_that_of_a_fresh_learner(run: WarmRun) -> None:
    run.learner.seconds = 20.0
    run.seconds = 1000.0
    run.learner.deaths = {("imitate", 0), ("end_warm_start", 0), ("accumulate", 0)}
    run.go()
    assert len(run.learner.lessons) == 12
    assert run.learner.warmed
    assert run.coordinator.ledger.counts["deaths/learner"] == 3
    assert run.coordinator.updates == UPDATES


def test_collapse_before_any_update_is_trusted_returns_to_the_model_of_the_warm_start(run: WarmRun) -> None:
    run.collapse({8, 9})
    more = {"guard.action": "rollback", "guard.window": 6, "guard.patience": 9, "budget.updates": 10}
    run.config = changed(run.config, more)
    run.seconds = 1000.0
    run.go()
    assert [batch.version for batch in run.learner.batches][-10:] == list(range(10))
    assert len(run.learner.lessons) == 12


def test_work_that_a_crash_has_lost_takes_nothing_from_the_time(tmp_path: Path) -> None:
    run = WarmRun(tmp_path, fraction=0.3, seconds=150.0)
    run.learner.seconds, run.learner.deaths = 3.0, {("end_warm_start", 0)}
    run.go()
    progress = [progress for _, progress in run.learner.imitated]
    assert len(run.learner.lessons) == 12
    assert progress[12:] == pytest.approx(progress[:12], abs=0.01)


@pytest.mark.parametrize(("first_s", "others_s"), [(20.0, 20.0), (50.0, 50.0), (100.0, 1.0)])
def test_slow_engines_leave_something_to_learn(tmp_path: Path, first_s: float, others_s: float) -> None:
    """Responses that end after the time for them, or beside a longer one. Of 30 s, 15 s are for sampling."""
    run = WarmRun(tmp_path, fraction=0.1, seconds=300.0)
    slow = {place: first_s if place == 0 else others_s for place in range(7)}
    run.engine.seconds_of = lambda index: 1.0 if run.learner.imitated else slow.get(index, 1.0)  # type: ignore[method-assign]
    run.go()
    assert len(run.folder.candidates()) == 7 - (first_s > others_s)
    assert run.learner.imitated
    assert any(event.kind is EventKind.IMITATED_LITTLE for event in run.folder.events()) == (first_s == 50.0)


def test_an_error_of_the_base_evaluation_ends_the_warm_start(run: WarmRun) -> None:
    async def fail(_: int, problem: Problem, *more: Any) -> None:
        assert problem.id != "p100"

    run.engine.before = fail  # type: ignore[method-assign]
    assert isinstance(run.fail(), AssertionError)
    assert len(run.learner.imitated) == 1


@pytest.mark.parametrize(("updates", "faulty"), [(4, (-2, -3, -4)), (2, (-1, -2))])
def test_three_steps_without_a_finite_loss_halt_it_or_all(
    tmp_path: Path, updates: int, faulty: tuple[int, ...]
) -> None:
    run = WarmRun(tmp_path, updates=updates)
    run.learner.faulty = faulty
    assert isinstance(run.fail(), Halted)
    assert len(run.learner.imitated) == updates


@pytest.mark.parametrize("updates", [0, 4])
def test_version_0_is_the_result_if_nothing_later_is_better(tmp_path: Path, updates: int) -> None:
    run = WarmRun(tmp_path)
    more = {"validation.every": 2, "validation.problems": 2, "validation.share": 1.0, "budget.updates": updates or 1}
    run.config = changed(run.config, more)

    def rewards(group: Group) -> tuple[Reward, ...]:
        good = group.adapter is None or group.adapter.version == 0
        return (make_reward(float(good)), make_reward(0.0))

    run.verifier.rewards_of = rewards
    if not updates:
        run.learner.accumulate = lambda batch: asyncio.sleep(1e4)  # type: ignore[method-assign]  # it never ends
    run.go()
    result = result_of(run.folder)
    assert result
    assert (result.update, result.validation) == (0, 1.0)
    assert run.eval.final
    assert run.eval.final.pass_at_1 == 1.0
    assert {row.version for row in run.folder.samples("eval-final")} == {0}
    assert run.coordinator.updates == updates
    assert (run.eval.last is None) == (updates == 0)


def test_a_stop_while_version_0_is_evaluated_leaves_that_to_the_next_process(run: WarmRun) -> None:
    def seconds_of(_: int) -> float:
        stopping = run.coordinator._stopping
        if "the model at the start" in run.coordinator.progress.doing and not stopping.stopped:
            stopping.stop("SIGTERM")
        return 1.0

    run.engine.seconds_of = seconds_of  # type: ignore[method-assign]
    assert run.go().status == "interrupted"
    run.engine.seconds_of = lambda _: 1.0  # type: ignore[method-assign]
    run.go()
    assert run.folder.evaluation("warm")
