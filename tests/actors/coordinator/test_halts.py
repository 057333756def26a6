"""Faults that end a run, and those it survives."""

import json
from dataclasses import replace
from typing import Any

import pytest

from actors.messages import Group, Reward, Status
from actors.storage.documents import EventKind
from conf.settings import changed
from tests.actors.virtual_run import Run
from tests.fakes import make_reward


def test_every_version_is_checked_before_the_next_is_made(run: Run) -> None:
    run.config = changed(run.config, {"budget.updates": 6})
    run.go()
    assert [(version, adapter and adapter.version) for version, adapter in run.learner.scored] == [
        (version, version) for version in range(7)
    ]


@pytest.mark.parametrize("solved", [0, 8], ids=["no problem", "one of eight"])
@pytest.mark.parametrize("refill", [False, True])
def test_rewards_without_variance_halt_the_run(run: Run, solved: int, refill: bool) -> None:
    """One solved problem among unsolved ones does not make the others so: nothing can be learned."""
    run.config = changed(run.config, {"learner.dynamic_sampling": refill})
    run.verifier.rewards_of = lambda group: (make_reward(float(group.index % 8 == solved - 1)),) * 2
    assert "nothing can be learned" in str(run.fail())
    assert run.learner.version == 0 or not refill


def test_groups_without_variance_are_replaced_where_asked_for(run: Run) -> None:
    """Every second problem is always solved: batches are made of the others, and none comes up twice."""
    run.config = changed(run.config, {"learner.dynamic_sampling": True, "budget.updates": 5})
    run.verifier.rewards_of = lambda group: (make_reward(1.0), make_reward(float(group.index % 2)))
    assert run.go().status == "completed"
    used = [group.index for batch in run.learner.batches for group in batch.groups]
    assert used == [2 * number for number in range(10)]
    assert run.coordinator.ledger.counts["groups/refilled"] >= 9
    assert all(row["groups/zero_variance"] == 0.0 for row in run.rows)
    state = json.loads((run.path / "checkpoints" / "latest" / "coordinator.json").read_text())
    assert state["next_unused"] >= 19


def test_reward_function_that_fails_always_halts_the_run_and_is_named(run: Run) -> None:
    complaint = "'mine:tone' raised KeyError: 'x', on problem p3"
    failed = replace(make_reward(0.0, Status.CRASH), complaint=complaint)
    run.verifier.rewards_of = lambda _: (failed,) * 2
    run.config = changed(run.config, {"eval.problems": 0})
    cause = run.fail()
    assert "no answer could be verified" in str(cause)
    assert complaint in str(cause)
    details = [event.detail for event in run.folder.events() if event.kind is EventKind.REWARD_FAILED]
    assert set(details) == {complaint}
    assert run.coordinator.ledger.counts["rewards/failed"] > len(details)


@pytest.mark.parametrize("refill", [False, True])
@pytest.mark.parametrize("lost", [0, 1], ids=["all verified", "one timeout"])
def test_run_with_every_answer_right_is_complete(run: Run, lost: int, refill: bool) -> None:
    run.config = changed(run.config, {"learner.dynamic_sampling": refill})
    right, without = make_reward(1.0), make_reward(0.0, Status.TIMEOUT)
    run.verifier.rewards_of = lambda _: (right,) * (2 - lost) + (without,) * lost
    outcome = run.go()
    assert outcome.status == "completed"
    assert "nothing is left" in outcome.reason
    assert run.spent < run.seconds / 2
    assert run.folder.evaluation("final")


@pytest.mark.parametrize(
    ("others", "solved", "complete"),
    [(Status.WRONG, 0, False), (Status.WRONG, 1, True), (Status.CRASH, 1, False)],
    ids=["all unsolved", "every second solved", "every second solved, the others not verified"],
)
def test_run_that_has_learned_is_complete_once_its_problems_are_solved_always_or_never(
    run: Run, others: Status, solved: int, complete: bool
) -> None:
    def rewards(group: Group) -> tuple[Reward, ...]:
        if group.index < 4:
            return make_reward(1.0), make_reward(0.0)
        return (make_reward(1.0) if group.index % 2 < solved else make_reward(0.0, others),) * 2

    run.verifier.rewards_of = rewards
    if complete:
        outcome = run.go()
        assert outcome.status == "completed"
        assert "nothing more can be learned" in outcome.reason
    else:
        assert "nothing can be learned" in str(run.fail())
    assert run.learner.version > 0


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"reward.accuracy": 0.0, "reward.format": 1.0}, {}),
        ({}, {"total": 0.0, "parts": {"accuracy": 0.0, "format": 0.0}, "counted": True, "failure": Status.CRASH}),
    ],
    ids=["not weighed", "beside a function that always fails and counts as wrong"],
)
def test_right_answers_that_earn_nothing_are_no_success(
    run: Run, settings: dict[str, Any], change: dict[str, Any]
) -> None:
    run.config = changed(run.config, settings)
    run.verifier.rewards_of = lambda _: (replace(make_reward(1.0), **change),) * 2
    assert "nothing can be learned" in str(run.fail())


def test_failure_of_an_actor_is_not_swallowed(run: Run) -> None:
    async def fail(*_: object) -> None:
        await run.learner.travel()
        raise RuntimeError("the GPU is gone")

    run.learner.accumulate = fail  # type: ignore[assignment]
    assert str(run.fail()) == "the GPU is gone"


@pytest.mark.parametrize(("skipped", "halts"), [((2, 3, 5, 6), False), ((2, 3, 4), True)])
def test_three_skipped_updates_in_a_row_halt_the_run(run: Run, skipped: tuple[int, ...], halts: bool) -> None:
    run.learner.faulty = skipped
    run.config = changed(run.config, {"budget.updates": 7})
    if halts:
        assert "the loss is nan" in str(run.fail())
        assert run.learner.version == 4
    else:
        assert run.go().status == "completed"
    assert run.coordinator.ledger.counts["updates/skipped"] == len(skipped)
    kept = sorted(path.name for path in (run.path / "samples").glob("skipped-*"))
    assert kept == [f"skipped-{update:06d}.jsonl" for update in skipped]
