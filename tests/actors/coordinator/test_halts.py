"""What the coordinator lets no run go on with, and what it passes over."""

import json
from dataclasses import replace

import pytest

from actors.errors import Halted
from actors.messages import Group, Scores, Status, UpdateStats
from tests.actors.virtual_run import Run, score_all, score_each
from tests.fakes import FakeVerifier, make_reward


def test_wrong_adapter_in_the_rollouts_halts_the_run(run: Run) -> None:
    run.engine.logprob = -3.0
    cause = run.fail()
    assert isinstance(cause, Halted)
    assert "log-probabilities" in str(cause)


def test_every_version_is_checked_before_the_next_is_made(run: Run) -> None:
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
    cause = run.fail()
    assert isinstance(cause, Halted)
    assert run.learner.version == 3


@pytest.mark.parametrize("solved", [0, 8], ids=["no problem", "one of eight"])
@pytest.mark.parametrize("refill", [False, True])
def test_rewards_without_variance_halt_the_run(run: Run, solved: int, refill: bool) -> None:
    """One solved problem among unsolved ones does not make the others so: nothing can be learned."""
    run.config.learner.refill = refill
    run.verifier.score = lambda group: score_all(group, float(group.index % 8 == solved - 1))  # type: ignore[method-assign]
    assert "nothing can be learned" in str(run.fail())
    assert run.learner.version == 0 or not refill


def test_groups_without_variance_are_replaced_where_asked_for(run: Run) -> None:
    """Every second problem is always solved: batches are made of the others, and none comes up twice."""
    run.config.learner.refill = True
    run.config.budget.updates = 5
    run.verifier.score = lambda group: score_each(group, (1.0, float(group.index % 2)))  # type: ignore[method-assign]
    assert run.go().status == "completed"
    used = [group.index for batch in run.learner.batches for group in batch.groups]
    assert used == [2 * number for number in range(10)]
    assert run.coordinator.ledger.counts["groups/refilled"] >= 9
    assert all(row["groups/zero_variance"] == 0.0 for row in run.rows)
    state = json.loads((run.path / "checkpoints" / "latest" / "coordinator.json").read_text())
    assert state["next_unused"] >= 19


def test_groups_that_could_not_be_verified_give_their_capacity_back(run: Run) -> None:
    async def score(group: Group) -> Group:
        timeout = make_reward(0.0, Status.TIMEOUT)
        verified = await FakeVerifier().score(group)
        return replace(group, rewards=(timeout, timeout)) if group.index % 3 == 0 else verified

    run.verifier.score = score  # type: ignore[method-assign]
    run.config.budget.updates = 5
    run.config.eval.problems = 0
    assert run.go().status == "completed"
    assert all(group.index % 3 for batch in run.learner.batches for group in batch.groups)
    assert run.coordinator.ledger.counts["tokens/failed"] == 2 * run.coordinator.ledger.counts["groups/failed"] > 0


def test_reward_function_that_fails_always_halts_the_run_and_is_named(run: Run) -> None:
    complaint = "'mine:tone' raised KeyError: 'x', on problem p3"

    async def score(group: Group) -> Group:
        failed = replace(make_reward(0.0, Status.CRASH), complaint=complaint)
        return replace(group, rewards=(failed,) * len(group.samples))

    run.verifier.score = score  # type: ignore[method-assign]
    run.config.eval.problems = 0
    cause = run.fail()
    assert "no answer could be verified" in str(cause)
    assert complaint in str(cause)
    details = [event["detail"] for event in run.folder.events() if event["event"] == "reward function failed"]
    assert set(details) == {complaint}
    assert run.coordinator.ledger.counts["rewards/failed"] > len(details)


@pytest.mark.parametrize("lost", [0, 1], ids=["all judged", "one without a verdict"])
def test_run_with_every_answer_right_is_complete(run: Run, lost: int) -> None:
    async def score(group: Group) -> Group:
        right, without = make_reward(1.0), make_reward(0.0, Status.TIMEOUT)
        return replace(group, rewards=(right,) * (len(group.samples) - lost) + (without,) * lost)

    run.verifier.score = score  # type: ignore[method-assign]
    outcome = run.go()
    assert outcome.status == "completed"
    assert "nothing is left" in outcome.reason


def test_a_function_that_always_fails_and_counts_as_wrong_is_no_success(run: Run) -> None:
    """The verdicts are right all the same."""

    async def score(group: Group) -> Group:
        failed = replace(make_reward(1.0), total=0.0, parts={"accuracy": 0.0}, counted=True, failure=Status.CRASH)
        return replace(group, rewards=(failed,) * len(group.samples))

    run.verifier.score = score  # type: ignore[method-assign]
    cause = run.fail()
    assert "nothing can be learned" in str(cause)


def test_failure_of_an_actor_is_not_swallowed(run: Run) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the card fell off the bus")

    run.learner.accumulate = fail  # type: ignore[assignment]
    cause = run.fail()
    assert str(cause) == "the card fell off the bus"


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
    cause = run.fail()
    assert isinstance(cause, Halted)
    assert "the loss is nan" in str(cause)
    assert run.learner.version == 4
