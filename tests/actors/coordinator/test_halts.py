"""Faults that end a run, and those it survives."""

import json
from dataclasses import replace

import pytest

from microbudget_rl.actors.messages import Complaint, Group, Reward, Status
from microbudget_rl.actors.storage.documents import EventKind
from tests.actors.virtual_run import Run
from tests.fakes import make_reward


def test_every_version_is_checked_before_the_next_is_made(run: Run):
    run.change({"budget.updates": 6})
    run.go()
    assert [(version, adapter and adapter.version) for version, adapter in run.learner.scored] == [
        (version, version) for version in range(7)
    ]


@pytest.mark.parametrize("refill", [False, True])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_rewards_that_teach_nothing_halt_the_run(run: Run, refill: bool, right: float):
    """With a right response, each is cut off, so that the learner leaves it out."""
    run.change({"learner.dynamic_sampling": refill, "algorithm.mask_truncated": True})
    run.engine.finish_reason = "length"
    run.verifier.rewards_of = lambda _: (make_reward(right), make_reward(0.0))
    cause = str(run.fail())
    assert "nothing can be learned" in cause
    assert ("mask_truncated" in cause) == bool(right)
    assert run.learner.version == 0 or len(run.rows) == run.coordinator.updates > 0 == refill
    assert not run.coordinator.ledger.counts.get("tokens/useful")


def test_a_group_with_variance_among_many_that_are_replaced_is_no_streak(run: Run):
    """It waits for its batch while far more are dropped than the streak may have."""
    run.change({"learner.dynamic_sampling": True, "budget.updates": 3})
    run.verifier.rewards_of = lambda group: (make_reward(1.0), make_reward(float(group.index % 5 > 0)))
    assert run.go().status == "completed"
    assert len(run.rows) == 3


def test_groups_without_variance_are_replaced_where_asked_for(run: Run):
    """Every second problem is always solved: batches are made of the others, and none comes up twice."""
    run.change({"learner.dynamic_sampling": True, "budget.updates": 5})
    run.verifier.rewards_of = lambda group: (make_reward(1.0), make_reward(float(group.index % 2)))
    assert run.go().status == "completed"
    used = [group.index for batch in run.learner.batches for group in batch.groups]
    assert used == [2 * number for number in range(10)]
    assert run.coordinator.ledger.counts["groups/refilled"] >= 9
    assert all(row["groups/zero_variance"] == 0.0 for row in run.rows)
    state = json.loads((run.path / "checkpoints" / "latest" / "coordinator.json").read_text())
    assert state["next_unused"] >= 19


def test_reward_function_that_fails_always_halts_the_run_and_is_named(run: Run):
    """By one complaint of each kind, of which other responses or problems make no other."""
    kinds = [
        ("mine:tone", "raised KeyError: '#' (mine.py, line 3)"),
        ("mine:tone", "raised KeyError: '#' (mine.py, line 4)"),
        ("mine:tone", "raised ValueError: # (mine.py, line 3)"),
        ("mine:tone", "returned None: return one number per response"),
        ("mine:tone", "returned 1e+1#: return a finite number"),
        ("mine:mood", "returned None: return one number per response"),
    ]

    def failed(group: Group, *kinds: tuple[str, str]) -> Reward:
        complaints = (Complaint(function, error.replace("#", str(group.index))) for function, error in kinds)
        return replace(make_reward(0.0, Status.CRASH), complaints=tuple(complaints))

    run.verifier.rewards_of = lambda group: (failed(group, *kinds[:4]), failed(group, *kinds[3:]))
    run.change({"eval.problems": 0})
    cause = run.fail()
    assert "no answer could be verified" in str(cause)
    details = [event.detail for event in run.folder.events() if event.kind is EventKind.REWARD_FAILED]
    problems = {problem.id for problem in run.problems.train}
    for kind, detail in zip(kinds, details, strict=True):
        said = str(Complaint(*kind)).partition("#")[0]
        assert detail.startswith(said)
        assert detail.partition(", on problem ")[2] in problems
        assert said in str(cause)
    assert run.coordinator.ledger.counts["rewards/failed"] > len(details)


@pytest.mark.parametrize("refill", [False, True])
def test_run_with_every_answer_right_is_complete(run: Run, refill: bool):
    run.change({"learner.dynamic_sampling": refill})
    run.verifier.rewards_of = lambda _: (make_reward(1.0),) * 2
    outcome = run.go()
    assert (outcome.status, "nothing is left" in outcome.reason) == ("completed", True)
    assert run.spent < run.seconds / 2
    assert run.folder.evaluation("final")


def test_failure_of_an_actor_is_not_swallowed(run: Run):
    async def fail(*_: object) -> None:
        await run.learner.travel()
        raise RuntimeError("the GPU is gone")

    run.learner.accumulate = fail  # type: ignore[assignment]
    assert str(run.fail()) == "the GPU is gone"


@pytest.mark.parametrize(("skipped", "halts"), [((2, 3, 5, 6), False), ((2, 3, 4), True)])
def test_three_skipped_updates_in_a_row_halt_the_run(run: Run, skipped: tuple[int, ...], halts: bool):
    run.learner.faulty = skipped
    run.change({"budget.updates": 7})
    if halts:
        assert "the loss is nan" in str(run.fail())
        assert run.learner.version == 4
    else:
        assert run.go().status == "completed"
    assert run.coordinator.ledger.counts["updates/skipped"] == len(skipped)
    kept = sorted(path.name for path in (run.path / "samples").glob("skipped-*"))
    assert kept == [f"skipped-{update:06d}.jsonl" for update in skipped]
