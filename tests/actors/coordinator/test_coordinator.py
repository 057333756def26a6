"""The coordinator's logic with fakes at its seams, under virtual time: the ordinary course of a run."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from actors.coordinator.budget import SAFETY
from actors.coordinator.saving import SAVING_SHARE, UNSAVED_S
from actors.messages import Batch, Group, Judged, Reward
from conf.settings import changed
from tests.actors.virtual_run import Run
from tests.fakes import half_right


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


def test_a_slow_judge_is_waited_for_under_its_name(run: Run) -> None:
    run.verifier.seconds_of = lambda _: 20.0
    run.go()  # whose learner refuses groups that are too old
    assert run.ledger["learner"]["wait_rewards"] > 10.0
    assert run.ledger["rollouts"]["wait_rewards"] > 10.0


def judged(group: Group, tokens: int = 1000) -> tuple[Reward, ...]:
    return tuple(replace(reward, judged=Judged("7", tokens, 2.0)) for reward in half_right(group))


def test_the_judges_budget_ends_the_run_as_the_time_does(run: Run) -> None:
    """Each response costs 1. The last calls may cost more, and what is resumed has cost already."""
    run.config = changed(run.config, {"reward.judge.price_per_million_tokens": 1000.0, "reward.judge.budget": 60.0})
    run.seconds, run.verifier.rewards_of = 10_000.0, judged
    outcome = run.go()
    assert (outcome.status, outcome.final is not None) == ("budget_exhausted", True)
    assert "reward.judge.budget=60" in outcome.reason
    assert 60_000 <= run.coordinator.ledger.counts["judge/tokens"] < 100_000
    assert run.spent < 1000.0
    updates = run.coordinator.updates
    assert updates > 0
    assert "reward.judge.budget" in run.go().reason
    assert run.coordinator.updates == updates


def test_a_call_that_the_judge_refuses_for_money_ends_the_run(run: Run) -> None:
    run.config = changed(run.config, {"reward.judge.price_per_million_tokens": 1.0, "reward.judge.budget": 1.0})
    run.verifier.rewards_of = lambda group: tuple(
        replace(one, judged=Judged(refused=True)) for one in half_right(group)
    )
    assert "reward.judge.budget" in run.go().reason


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
