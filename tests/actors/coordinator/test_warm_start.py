"""The warm start in whole runs over fakes."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.context import result_of
from microbudget_rl.actors.coordinator.warm_start import step_order
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import Group, Reward, Sample
from microbudget_rl.actors.storage.checkpoints import read_state
from microbudget_rl.actors.storage.documents import EventKind
from tests.actors.virtual_run import Run
from tests.fakes import FakeGame, make_reward

UPDATES = 3


class WarmRun(Run):
    """Seven candidates, whose prompts show examples, or as many solutions. One response to each is learned, two per
    step.
    """

    def __init__(self, path: Path, source: str = "self", seconds: float = 200.0, **settings: Any) -> None:
        more = {"source": source, "per_problem": 1, "demonstrations_per_update": 2, "fraction": 0.5, **settings}
        super().__init__(path, {"budget.updates": UPDATES, **{f"warm_start.{k}": v for k, v in more.items()}}, seconds)


@pytest.fixture
def run(tmp_path: Path) -> WarmRun:
    return WarmRun(tmp_path)


def test_own_right_responses_are_learned_without_the_examples(run: WarmRun):
    assert run.go().status == "completed"
    batches, progress = zip(*run.learner.imitated, strict=True)
    assert [len(batch) for batch in batches] == [1, 2, 2, 2] * 3
    assert {each.problem.prompt for batch in batches for each in batch} == {p.prompt for p in run.problems.train}
    passes = [{each.problem.id for batch in batches[at : at + 4] for each in batch} for at in (0, 4, 8)]
    assert [len(each) for each in passes] == [7] * 3, "each pass has every problem once"
    assert (progress[0], [*progress]) == (0.0, sorted(progress))
    assert len(run.rows) == UPDATES
    evaluations = run.eval
    assert evaluations.base
    assert evaluations.warm
    assert {row.version for row in run.folder.samples("eval-warm")} == {0}
    state = read_state(run.path / "checkpoints" / "update-000000")
    assert (len(state.imitated), state.warm_start_over) == (12, True)


def test_solutions_are_verified_and_the_unused_are_named(tmp_path: Path):
    run = WarmRun(tmp_path, "file:worked.jsonl")
    run.change({"rollout.max_response_tokens": 16})

    def rewards(group: Group) -> tuple[Reward, ...]:
        return (make_reward(float(group.problem.id != "p303")),) * 2

    run.verifier.rewards_of, run.learner.deaths = rewards, {("imitate", 0)}
    run.go()
    learned = [each for batch, _ in run.learner.imitated for each in batch]
    assert {each.problem.id for each in learned} == {f"p{n}" for n in range(300, 307)} - {"p303"}
    assert all(each.samples[0].token_ids[1:] == (8, 9) for each in learned)
    died, event = run.folder.events()
    assert (died.kind, event.kind) == (EventKind.DIED, EventKind.IMITATED)
    assert "9 updates on 6 responses, loss 1.000 → 0.111; 1 of 7 " in event.detail
    assert [row.problem for row in run.folder.samples("warm-start") if not row.token_ids] == ["p303"]


def test_what_an_environment_gave_is_not_imitated(tmp_path: Path):
    run = WarmRun(tmp_path)
    run.engine = FakeGame()
    run.go()
    assert {each.samples[0].given for batch, _ in run.learner.imitated for each in batch} == {((1, 2),)}


@pytest.mark.parametrize("source", ["self", "file:worked.jsonl"])
def test_no_right_response_halts_the_run(tmp_path: Path, source: str):
    run = WarmRun(tmp_path, source)
    run.verifier.rewards_of = lambda _: (make_reward(0.0),) * 2
    cause = run.fail()
    assert isinstance(cause, Halted)
    assert "warm_start.source" in str(cause)
    assert not run.learner.imitated


def test_a_step_without_a_finite_loss_halts_the_run(run: WarmRun):
    run.learner.faulty = (-2,)
    assert isinstance(run.fail(), Halted)
    assert len(run.learner.imitated) == 2


def test_nothing_is_learned_twice_or_left_out_after_a_stop(tmp_path: Path):
    """A deterministic run that is stopped while it samples, while it imitates and later ends as if it had not been."""
    whole, parts = WarmRun(tmp_path / "whole", seconds=1e4), WarmRun(tmp_path / "parts", seconds=1e4)
    for run in (whole, parts):
        run.change({"run.deterministic": True, "learner.max_staleness": 0})
        run.engine.most_at_once = 1
        run.learner.seconds = 10.0
    whole.go()
    for seconds in (3.0, 12.0, 25.0, 70.0, 500.0):
        parts.go(seconds)
    assert parts.learner.lessons == whole.learner.lessons
    assert len(whole.learner.lessons) == 12
    first, second = ([row.content for row in run.folder.samples("warm-start")] for run in (parts, whole))
    assert first == second
    assert len(parts.learner.imitated) == 12, "a stop saves the work"


@pytest.mark.parametrize(("first_s", "step_s"), [(20.0, 15.0), (5.0, 3.0), (70.0, 1.0)])
def test_its_time_is_bounded_and_leaves_something_to_learn(tmp_path: Path, first_s: float, step_s: float):
    """Of 60 s, 30 s are for sampling; responses that end after them leave one update."""
    run = WarmRun(tmp_path, fraction=0.2, seconds=300.0)
    run.change({"eval.n": 1})
    run.engine.seconds_of = lambda index: first_s if index >= 0 else 1.0  # type: ignore[method-assign]
    run.learner.seconds = step_s
    run.go()
    assert len(run.learner.imitated) == {15.0: 2, 3.0: 12, 1.0: 1}[step_s]


def test_crashes_return_to_the_last_checkpoint_and_version_0_is_never_that_of_a_fresh_learner(run: WarmRun):
    run.learner.seconds = 20.0
    run.seconds = 2000.0
    run.learner.deaths = {("imitate", 0), ("publish", 0), ("accumulate", 0)}
    run.go()
    assert len(run.learner.lessons) == 12
    assert run.learner.warmed
    assert run.coordinator.ledger.counts["deaths/learner"] == 3
    assert run.coordinator.updates == UPDATES


@pytest.mark.parametrize("updates", [0, 4])
def test_version_0_is_the_result_if_nothing_later_is_better(tmp_path: Path, updates: int):
    run = WarmRun(tmp_path)
    more = {"validation.every": 2, "validation.problems": 2, "validation.share": 1.0, "budget.updates": updates or 1}
    run.change(more)

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


def test_a_stop_while_version_0_is_evaluated_leaves_that_to_the_next_process(run: WarmRun):
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


def test_only_right_whole_and_different_responses_are_learned_the_best_and_shortest_first(tmp_path: Path):
    run = WarmRun(tmp_path, "file:worked.jsonl", per_problem=3)
    whole = (1, 2, 3), (4,), (1, 2), (1, 2), (5,)
    samples = (*(Sample(ids, (), "", "stop") for ids in whole), Sample((6,), (), "", "length"))

    async def score(group: Group) -> Group:
        rewards = tuple(make_reward(total) for total in (1.0, 0.9, 1.0, 1.0, 0.0, 1.0))
        return replace(group, samples=samples, rewards=rewards)

    run.verifier.score = score  # type: ignore[method-assign]
    run.go()
    learned = [tuple(row.token_ids) for row in run.folder.samples("warm-start") if row.token_ids]
    assert Counter(learned) == {(1, 2, 3): 7, (1, 2): 7, (4,): 7}


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_a_pass_has_each_response_once_in_an_order_of_its_own(count: int, per_update: int, seed: int):
    parts = -(-count // per_update)
    first, second = ([step_order(count, per_update, seed, at + step) for step in range(parts)] for at in (0, parts))
    for batches in (first, second):
        assert Counter(place for batch in batches for place in batch) == Counter(range(count))
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= min(per_update, min(sizes) + 1)
    assert count < 12 or first != second
