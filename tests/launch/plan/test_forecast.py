from dataclasses import replace

import pytest

from actors.coordinator.budget import EVALUATION_SAFETY
from conf.errors import BadInput
from conf.load import load
from launch.plan.forecast import Pace, forecast, options, scale
from launch.plan.time import LEARN_RANGE, TOGETHER, Calibration
from tests.launch.plan.plans import CPU, machine, plan


def test_the_budget_holds_start_evaluations_and_updates() -> None:
    made = plan("quickstart", CPU)
    found = forecast(made)
    assert made.estimate
    left = 480 - found.start_s - (1 + EVALUATION_SAFETY) * made.estimate.evaluate_s
    assert found.updates == int(left / found.update_s)
    assert forecast(plan("quickstart", CPU, "budget.updates=3")).updates == 3


def test_validations_take_updates_from_the_budget_up_to_their_share() -> None:
    never, often, always = (
        plan("quickstart", CPU, f"validation.every={every}", f"validation.share={share}")
        for every, share in ((0, 0.05), (2, 0.5), (1, 0.5))
    )
    found = forecast(never)
    assert replace(found, plan=always).updates < replace(found, plan=often).updates < found.updates
    short = replace(found, update_s=0.01)
    assert replace(short, plan=always).updates == pytest.approx(short.updates / 2, abs=1)


def test_few_updates_do_not_spend_the_whole_budget() -> None:
    few, all_of_it = (plan("quickstart", CPU, *settings) for settings in (("budget.updates=3",), ()))
    found = forecast(few)
    assert found.spent_s == pytest.approx(found.start_s + 3 * found.update_s + 2 * found.evaluate_s)
    assert forecast(all_of_it).spent_s == 480


def test_the_run_gets_what_the_plan_has_decided() -> None:
    decided = {
        recipe: made.config.learner.gradient_checkpointing
        for recipe in ("r8_instruct", "r256_instruct")
        for made in (plan(recipe, replace(machine("A40"), gpu_memory=24 * 2**30)),)
    }
    assert decided == {"r8_instruct": "on", "r256_instruct": "on"}


def test_other_splits_are_named() -> None:
    learning = ["learning at 20% of the rate", "learning at 43% of the rate"]
    names = [name for name, _ in options(plan("r8_instruct", machine("A40", 4)))]
    assert names == ["learner.max_staleness=0", *learning, "learner.ranks=2", "5 × A40"]
    names = [name for name, _ in options(plan("r8_instruct", machine("A40", 4), "rollout.actors=2", "learner.ranks=2"))]
    assert names == ["learner.max_staleness=0", *learning, "learner.ranks=1", "5 × A40"]
    assert [name for name, _ in options(plan("quickstart", CPU))] == ["learner.max_staleness=0"]


def test_what_nobody_has_measured_of_a_shared_card_is_a_range() -> None:
    """And what it would do through MPS stands beside what it does in turn."""
    made = plan("r256_instruct", machine("A40"))
    found, others = forecast(made), dict(options(made))
    slow, fast = (others[f"learning at {share:.0%} of the rate"] for share in LEARN_RANGE)
    assert fast.update_s < found.update_s < slow.update_s
    assert others["run.mps=true"].update_s < 0.95 * found.update_s
    measured = replace(made, calibration=Calibration(together=1.1, of="20 updates"))
    names = [name for name, _ in options(measured)]
    assert names == ["learner.max_staleness=0", "run.mps=true", "2 × A40"]
    assert (made.together, measured.together) == (TOGETHER[False], 1.1)


def test_cards_are_planned_with_the_batch_and_with_one_that_grows() -> None:
    made = plan("r8_instruct", machine("A40"))
    rows = list(scale(made, machine("A40"), [1, 2]))
    assert [(row.plan.machine.gpus, row.plan.config.learner.problems_per_update) for row in rows] == [
        (1, 16),
        (2, 16),
        (2, 32),
    ]
    assert rows[0].update_s > rows[1].update_s
    with pytest.raises(BadInput, match=r"simulate=\[4\]: no card"):
        list(scale(plan("quickstart", CPU), CPU, [4]))


def test_what_does_not_fit_is_not_scaled() -> None:
    made = plan("r8_instruct", machine("T4"))
    with pytest.raises(BadInput, match=r"simulate=\[1\]: on 1 × T4, the T4 cannot compute in model\.dtype=bfloat16"):
        list(scale(made, machine("T4"), [1]))


@pytest.mark.parametrize(
    "settings", [["simulate=[8]"], ["simulate=[0]", "plan=true"], ["simulate=[2000]", "plan=true"]]
)
def test_only_plans_simulate_and_not_without_end(settings: list[str]) -> None:
    with pytest.raises(BadInput, match="simulate="):
        load(["conf=r8_instruct", *settings])


def test_the_pace_is_what_passed_between_two_rows() -> None:
    common = {"staleness/max": 1.0, "ledger/run/start": 2.0, "ledger/run/starting": 30.0}
    first = {"budget/spent_s": 50.0, "ledger/rollouts/generate": 20.0, "ledger/learner/update": 10.0}
    last = {"budget/spent_s": 110.0, "ledger/rollouts/generate": 50.0, "ledger/learner/update": 40.0}
    learner = {"ledger/learner/canary": 2.0, "ledger/learner/sync": 4.0}
    rows = [{}, common | first, *[common] * 9, common | last | learner]
    pace = Pace.between(rows, skipped=2)
    assert (pace.start_s, pace.update_s, pace.generate_s, pace.learn_s) == (32.0, 6.0, 3.0, 3.6)
    assert pace.rollouts_idle == 0.5
    assert pace.learner_idle == pytest.approx(0.4)
