"""The coordinator's logic with fakes at its seams, under virtual time: the ordinary course of a run."""

from itertools import pairwise
from pathlib import Path

import pytest

from microbudget_rl.actors.coordinator.budget import SAFETY
from microbudget_rl.actors.coordinator.saving import SAVING_SHARE, UNSAVED_S
from tests.actors.virtual_run import Run


def test_run_stops_at_the_updates_asked_for(run: Run):
    """And starts no group that no update would take."""
    run.change({"budget.updates": 5})
    outcome = run.go()
    assert (outcome.status, run.learner.version) == ("completed", 5)
    assert run.updates == [1, 2, 3, 4, 5]
    assert sorted(index for index, _ in run.engine.served) == list(range(10))


def test_generation_goes_on_while_the_learner_works(run: Run):
    """Groups of 1 s and updates of 2 s: overlapped, an update every 2 s and a bit; in turn it would be over 3 s."""
    run.change({"budget.updates": 20})
    run.go()
    learner = run.ledger["learner"]
    assert learner["wait_rollouts"] < 0.3 * learner["update"]


@pytest.mark.parametrize(("save_s", "apart_s"), [(1.0, UNSAVED_S), (4.0, 4.0 / SAVING_SHARE)])
def test_about_a_minute_of_work_is_unsaved_where_saving_takes_little(run: Run, save_s: float, apart_s: float):
    """Beside the planned checkpoints, which alone are kept."""
    run.seconds = 1000.0
    run.change({"checkpoint.every": 40, "budget.updates": 85})
    run.learner.seconds, run.learner.save_seconds = 10.0, save_s
    run.go()
    gaps = [later - earlier for earlier, later in pairwise(run.learner.saved_at)]
    assert max(gaps) <= SAFETY * apart_s + 2 * (run.learner.seconds + save_s)
    assert sum(gap < apart_s for gap in gaps) <= 3  # before those that are due, and the last
    assert [checkpoint.name for checkpoint in run.folder.checkpoints.all] == ["update-000080", "update-000085"]


def test_waiting_has_the_name_of_what_is_waited_for(tmp_path: Path):
    """The learner refuses groups that are too old."""
    late, slow = Run(tmp_path / "late"), Run(tmp_path / "slow")
    late.engine.seconds_of = lambda index: 20.0 if index % 8 == 0 else 0.5  # type: ignore[method-assign]
    slow.verifier.seconds_of = lambda _: 20.0
    late.go()
    slow.go()
    assert late.ledger["learner"]["wait_stragglers"] > 10.0
    assert min(slow.ledger[actor]["wait_rewards"] for actor in ("learner", "rollouts")) > 10.0


@pytest.mark.parametrize("masks", [False, True])
def test_metrics_have_the_names_of_the_contract(run: Run, masks: bool):
    """The loss's KL is reported instead of the adapter check's. Truncated samples are useful unless they are masked."""
    run.engine.finish_reason = "length"
    run.learner.metrics_of = lambda _: {"policy/kl_to_base": 0.125}
    run.change({"budget.updates": 1, "algorithm.mask_truncated": masks})
    run.go()
    promised = {
        "update", "version", "reward/mean", "reward/accuracy", "reward/format", "response/mean_length",
        "response/truncated", "policy/kl_to_base", "groups/zero_variance", "errors/unanimous",
        "time/generate", "time/verify",
        "time/learn", "time/sync", "budget/spent_s", "budget/left_s", "tokens/generated", "verify/timeout",
    }  # fmt: skip
    assert promised <= run.rows[0].keys()
    assert run.rows[0]["policy/kl_to_base"] == 0.125
    assert run.rows[0]["tokens/useful_fraction"] == float(not masks)
