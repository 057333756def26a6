from dataclasses import replace

import pytest

from conf.errors import BadInput
from conf.load import load
from launch.forecast import Forecast, Scaled, forecast, options, scale, updates_in_budget
from tests.launch.test_plan import CPU, machine, plan


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
    left = 600 - found.start_s - 2 * made.estimate.evaluate_s
    assert updates_in_budget(made, found) == int(left / found.update_s)
    assert updates_in_budget(plan("quickstart", CPU, "budget.updates=3"), found) == 3


def test_the_run_gets_what_the_plan_has_decided() -> None:
    decided = {
        recipe: (made.config.learner.offload, made.config.learner.gradient_checkpointing)
        for recipe in ("r8_instruct", "r256_instruct")
        for made in (plan(recipe, replace(machine("A40"), gpu_memory=24 * 2**30)),)
    }
    assert decided == {"r8_instruct": ("none", "on"), "r256_instruct": ("cpu", "on")}


def test_other_splits_are_named() -> None:
    names = [option.name for option in options(plan("r8_instruct", machine("A40", 4)))]
    assert names == ["learner.overlap=off", "learner.ranks=2", "5 × A40"]
    assert [option.name for option in options(plan("quickstart", CPU))] == ["learner.overlap=off"]


def test_cards_are_simulated_with_the_batch_and_with_one_that_grows() -> None:
    made = plan("r8_instruct", machine("A40"))
    rows = list(scale(made, machine("A40"), [1, 2], made.calibration))
    assert [(row.gpus, row.plan.config.learner.problems_per_update) for row in rows] == [(1, 16), (2, 16), (2, 32)]
    assert rows[0].forecast.update_s > rows[1].forecast.update_s
    with pytest.raises(BadInput, match=r"simulate=\[4\]: no card"):
        list(scale(plan("quickstart", CPU), CPU, [4], made.calibration))


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
