from dataclasses import replace

import pytest

from actors.coordinator.budget import EVALUATION_SAFETY
from conf.errors import BadInput
from conf.load import load
from launch.plan.forecast import MANY, Forecast, Scaled, forecast, options, scale, seconds_spent, updates_in_budget
from tests.launch.plan.test_plan import CPU, machine, plan


def test_a_simulated_update_takes_no_less_than_its_longer_half() -> None:
    for recipe, where in (("quickstart", CPU), ("r8_instruct", machine("A40", 2))):
        made = plan(recipe, where)
        assert made.estimate
        assert made.estimate.together
        found = forecast(made)
        longer = max(made.estimate.generate_s, made.estimate.learn_s)
        assert 0.85 * longer < found.update_s < 1.7 * longer
        assert 0 <= found.rollouts_idle <= 1
        assert 0 <= found.learner_idle <= 1


def test_the_budget_holds_start_evaluations_and_updates() -> None:
    made = plan("quickstart", CPU)
    found = forecast(made)
    assert made.estimate
    left = 600 - found.start_s - (1 + EVALUATION_SAFETY) * made.estimate.evaluate_s
    assert updates_in_budget(made, found) == int(left / found.update_s)
    assert updates_in_budget(plan("quickstart", CPU, "budget.updates=3"), found) == 3


def test_validations_take_updates_from_the_budget_up_to_their_share() -> None:
    never, often, always = (
        plan("quickstart", CPU, f"validation.every={every}", f"validation.share={share}")
        for every, share in ((0, 0.05), (2, 0.5), (1, 0.5))
    )
    found = forecast(never)
    slow = replace(found, update_s=0.01)
    assert updates_in_budget(always, found) < updates_in_budget(often, found) < updates_in_budget(never, found)
    assert updates_in_budget(always, slow) == pytest.approx(updates_in_budget(never, slow) / 2, abs=1)


def test_few_updates_do_not_spend_the_whole_budget() -> None:
    few, all_of_it = (plan("quickstart", CPU, *settings) for settings in (("budget.updates=3",), ()))
    found = forecast(few)
    assert few.estimate
    spent = found.start_s + 3 * found.update_s + 2 * few.estimate.evaluate_s
    assert seconds_spent(few, found) == pytest.approx(spent)
    assert seconds_spent(all_of_it, found) == 600


def test_a_forecast_is_of_the_steady_state() -> None:
    """However many groups piled up before the first update, and however few updates are looked at on many cards."""
    few, many = (
        forecast(plan("r8_instruct", machine("A40", gpus), "learner.ranks=5", "learner.max_staleness=8"))
        for gpus in (MANY - 1, MANY)
    )
    assert many.update_s == pytest.approx(few.update_s, rel=0.05)


def test_the_run_gets_what_the_plan_has_decided() -> None:
    decided = {
        recipe: (made.config.learner.offload, made.config.learner.gradient_checkpointing)
        for recipe in ("r8_instruct", "r256_instruct")
        for made in (plan(recipe, replace(machine("A40"), gpu_memory=24 * 2**30)),)
    }
    assert decided == {"r8_instruct": ("none", "on"), "r256_instruct": ("cpu", "on")}


def test_other_splits_are_named() -> None:
    names = [option.name for option in options(plan("r8_instruct", machine("A40", 4)))]
    assert names == ["learner.max_staleness=0", "learner.ranks=2", "5 × A40"]
    names = [
        option.name for option in options(plan("r8_instruct", machine("A40", 4), "rollout.actors=2", "learner.ranks=2"))
    ]
    assert names == ["learner.max_staleness=0", "learner.ranks=1", "5 × A40"]
    assert [option.name for option in options(plan("quickstart", CPU))] == ["learner.max_staleness=0"]


def test_cards_are_simulated_with_the_batch_and_with_one_that_grows() -> None:
    made = plan("r8_instruct", machine("A40"))
    rows = list(scale(made, machine("A40"), [1, 2], made.calibration))
    assert [(row.gpus, row.plan.config.learner.problems_per_update) for row in rows] == [(1, 16), (2, 16), (2, 32)]
    assert rows[0].forecast.update_s > rows[1].forecast.update_s
    with pytest.raises(BadInput, match=r"simulate=\[4\]: no card"):
        list(scale(plan("quickstart", CPU), CPU, [4], made.calibration))


def test_what_does_not_fit_is_not_simulated() -> None:
    made = plan("r8_instruct", machine("T4"))
    with pytest.raises(BadInput, match=r"simulate=\[1\]: on 1 × T4, the T4 cannot compute in model\.dtype=bfloat16"):
        list(scale(made, machine("T4"), [1], made.calibration))


def test_a_coordinator_that_would_fill_a_core_is_the_bottleneck() -> None:
    made = plan("r8_instruct", machine("A40"))
    busy = Forecast(1.0, 2.0, 1.9, 1.9, 1.0, 1.0, group_cpu_s=0.01, groups=100)
    assert Scaled(1, made, busy).bottleneck == "generation"
    assert Scaled(1, made, replace(busy, group_cpu_s=0.11)).bottleneck == "coordinator"


@pytest.mark.parametrize(
    "settings", [["simulate=[8]"], ["simulate=[0]", "plan=true"], ["simulate=[2000]", "plan=true"]]
)
def test_only_plans_simulate_and_not_without_end(settings: list[str]) -> None:
    with pytest.raises(BadInput, match="simulate="):
        load(["conf=r8_instruct", *settings])
