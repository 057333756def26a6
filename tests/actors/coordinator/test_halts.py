"""What the coordinator lets no run go on with, and what it passes over."""

import json
from dataclasses import replace

import pytest

from actors.errors import Halted, root_cause
from actors.messages import Group, Scores, Status, UpdateStats
from tests.actors.virtual_run import Run, score_all, score_each
from tests.fakes import FakeVerifier, make_reward


def test_wrong_adapter_in_the_rollouts_halts_the_run(run: Run) -> None:
    run.engine.logprob = -3.0
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert isinstance(root_cause(caught.value), Halted)
    assert "log-probabilities of the rollouts differ" in str(root_cause(caught.value))


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
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert isinstance(root_cause(caught.value), Halted)
    assert run.learner.version == 3


def test_rewards_without_variance_halt_the_run(run: Run) -> None:
    run.config.rollout.samples_per_problem = 1
    run.verifier.score = lambda group: score_all(group, 0.0)  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "nothing can be learned" in str(root_cause(caught.value))


def test_group_that_is_all_right_does_not_make_the_others_so(run: Run) -> None:
    """One solved problem among unsolved ones: nothing can be learned, and that is no success."""
    run.verifier.score = lambda group: score_all(group, float(group.index % 8 == 7))  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "nothing can be learned" in str(root_cause(caught.value))


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


def test_refill_halts_too_when_nothing_can_be_learned(run: Run) -> None:
    run.config.learner.refill = True
    run.verifier.score = lambda group: score_all(group, 0.0)  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "all samples of a problem earned the same" in str(root_cause(caught.value))
    assert run.learner.version == 0


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
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "no answer could be judged" in str(root_cause(caught.value))
    assert complaint in str(root_cause(caught.value))
    details = [event["detail"] for event in run.folder.events() if event["event"] == "reward function failed"]
    assert set(details) == {complaint}
    assert run.coordinator.ledger.counts["rewards/failed"] > len(details)


def test_run_with_every_answer_right_is_complete(run: Run) -> None:
    run.verifier.score = lambda group: score_all(group, 1.0)  # type: ignore[method-assign]
    outcome = run.go()
    assert outcome.status == "completed"
    assert "nothing is left to learn" in outcome.reason


def test_an_answer_without_a_verdict_does_not_make_a_solved_run_a_failure(run: Run) -> None:
    async def score(group: Group) -> Group:
        right, lost = make_reward(1.0), make_reward(0.0, Status.TIMEOUT)
        return replace(group, rewards=(right,) * (len(group.samples) - 1) + (lost,))

    run.verifier.score = score  # type: ignore[method-assign]
    outcome = run.go()
    assert outcome.status == "completed"
    assert "nothing is left to learn" in outcome.reason


def test_a_function_that_always_fails_and_counts_as_wrong_is_no_success(run: Run) -> None:
    """The verdicts are right all the same."""

    async def score(group: Group) -> Group:
        failed = replace(make_reward(1.0), total=0.0, parts={"accuracy": 0.0}, counted=True, failure=Status.CRASH)
        return replace(group, rewards=(failed,) * len(group.samples))

    run.verifier.score = score  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert "nothing can be learned" in str(root_cause(caught.value))


def test_failure_of_an_actor_is_not_swallowed(run: Run) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the card fell off the bus")

    run.learner.accumulate = fail  # type: ignore[assignment]
    with pytest.raises(ExceptionGroup) as caught:
        run.go()
    assert str(root_cause(caught.value)) == "the card fell off the bus"


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
