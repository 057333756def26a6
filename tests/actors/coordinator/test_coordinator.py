"""The coordinator's logic with fakes at its seams, under virtual time: the ordinary course of a run."""

from itertools import pairwise
from typing import Any

import pytest

from actors.coordinator.budget import SAFETY
from actors.coordinator.saving import SAVING_SHARE, UNSAVED_S
from actors.messages import Batch, Group
from conf.settings import changed
from tests.actors.virtual_run import Run


def test_run_stops_at_the_updates_asked_for(run: Run) -> None:
    """And starts no group that no update would take."""
    run.config = changed(run.config, {"budget.updates": 5})
    outcome = run.go()
    assert (outcome.status, run.learner.version) == ("completed", 5)
    assert [row["update"] for row in run.rows] == [1, 2, 3, 4, 5]
    assert sorted(index for index, _ in run.engine.served) == list(range(10))


def test_generation_goes_on_while_the_learner_works(run: Run) -> None:
    """Groups of 1 s and updates of 2 s: overlapped, an update every 2 s and a bit; in turn it would be over 3 s."""
    run.config = changed(run.config, {"budget.updates": 20})
    run.go()
    learner = run.ledger["learner"]
    assert learner["wait_rollouts"] < 0.3 * learner["update"]


@pytest.mark.parametrize(("save_s", "apart_s"), [(1.0, UNSAVED_S), (4.0, 4.0 / SAVING_SHARE)])
def test_about_a_minute_of_work_is_unsaved_where_saving_takes_little(run: Run, save_s: float, apart_s: float) -> None:
    """Beside the planned checkpoints, which alone are kept."""
    run.seconds = 1000.0
    run.config = changed(run.config, {"checkpoint.every": 40, "budget.updates": 85})
    run.learner.seconds, run.learner.save_seconds = 10.0, save_s
    run.go()
    gaps = [later - earlier for earlier, later in pairwise(run.learner.saved_at)]
    assert max(gaps) <= SAFETY * apart_s + 2 * (run.learner.seconds + save_s)
    assert sum(gap < apart_s for gap in gaps) <= 3  # before those that are due, and the last
    assert [checkpoint.name for checkpoint in run.folder.checkpoints.all] == ["update-000080", "update-000085"]


def test_waiting_for_stragglers_has_a_name(run: Run) -> None:
    run.engine.seconds_of = lambda index: 20.0 if index % 8 == 0 else 0.5  # type: ignore[method-assign]
    run.go()
    assert run.ledger["learner"]["wait_stragglers"] > 10.0


def test_slow_rewards_are_waited_for_under_their_name(run: Run) -> None:
    run.verifier.seconds_of = lambda _: 20.0
    run.go()  # whose learner refuses groups that are too old
    assert run.ledger["learner"]["wait_rewards"] > 10.0
    assert run.ledger["rollouts"]["wait_rewards"] > 10.0


def test_in_turns_nothing_is_generated_while_the_learner_works(run: Run) -> None:
    run.config = changed(run.config, {"learner.max_staleness": 0, "budget.updates": 8})
    busy, overlapped = 0, list[bool]()
    accumulate, generate = run.learner.accumulate, run.engine.generate

    async def learn(batch: Batch) -> None:
        nonlocal busy
        busy += 1
        await accumulate(batch)
        busy -= 1

    async def sample(index: int, problem: Any, adapter: Any, sampling: Any) -> Group:
        before = busy
        group = await generate(index, problem, adapter, sampling)
        if adapter:  # the base model is evaluated beside the first update
            overlapped.append(bool(before or busy))
        return group

    run.learner.accumulate, run.engine.generate = learn, sample  # type: ignore[method-assign]
    run.go()
    assert overlapped
    assert not any(overlapped)
    assert all(row["overlap"] == 0.0 for row in run.rows)
    assert all(g.version == batch.version for batch in run.learner.batches for g in batch.groups)


@pytest.mark.parametrize("masks", [False, True])
def test_metrics_have_the_names_of_the_contract(run: Run, masks: bool) -> None:
    """The loss's KL is reported instead of the adapter check's. Truncated samples are useful unless they are masked."""
    run.engine.finish_reason = "length"
    run.learner.metrics_of = lambda _: {"policy/kl_to_base": 0.125}
    run.config = changed(run.config, {"budget.updates": 1, "algorithm.mask_truncated": masks})
    run.go()
    promised = {
        "update", "version", "reward/mean", "reward/accuracy", "reward/format", "response/mean_length",
        "response/truncated", "policy/kl_to_base", "groups/zero_variance", "time/generate", "time/verify",
        "time/learn", "time/sync", "budget/spent_s", "budget/left_s", "tokens/generated", "verify/timeout",
    }  # fmt: skip
    assert promised <= run.rows[0].keys()
    assert run.rows[0]["policy/kl_to_base"] == 0.125
    assert run.rows[0]["tokens/useful_fraction"] == float(not masks)
