import re
from dataclasses import replace

import pytest

from microbudget_rl.conf.catalogue import devices
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch.plan.plan import Problems
from microbudget_rl.launch.plan.time import Calibration
from microbudget_rl.launch.plan.view import FEWEST_UPDATES, MOST_PASSES, conclusion, scale
from tests.launch.plan.plans import CPU, estimated, machine, plan, shown


@pytest.mark.parametrize("card", [None, *devices(), "unlisted"])
def test_plan_reads_within_the_screen(card: str | None):
    where = CPU if card is None else machine("A40" if card == "unlisted" else card)
    if card == "unlisted":
        where = replace(where, name="a new GPU", bandwidth=None, rates={})
    made = plan("r256_instruct", where)
    for width in (80, 120):
        text = shown(made, width)
        assert max(len(line) for line in text.splitlines()) <= width
        assert "…" not in text
        for words in ("rank 256", "knoveleng/open-rs", "rollout", "learner", "fit"):
            assert words in text


def test_the_first_line_names_the_cost_and_a_range_of_updates_until_they_are_measured():
    for made in (plan("gsm8k", machine("RTX3060"), "budget.price_per_hour=0.5"), plan("quickstart", CPU)):
        low, planned, high = (estimated(made).update_range[0], estimated(made).updates, estimated(made).update_range[1])
        assert f"{planned} updates in" in (first := conclusion(made).plain)
        assert low < planned < high
        assert f"({low} to {high}: " in first
        assert ("at 0.50 per hour" in first) == bool(made.machine.gpus)
        assert "(" not in conclusion(replace(made, calibration=Calibration(of="20 updates"))).plain


@pytest.mark.parametrize(("updates", "style"), [(FEWEST_UPDATES - 1, "bold yellow"), (FEWEST_UPDATES, "bold green")])
def test_plan_of_few_updates_warns(updates: int, style: str):
    first = conclusion(plan("quickstart", CPU, f"budget.updates={updates}"))
    assert re.match(rf".*about {updates} updates in (?!8 min)[^(]*$", first.plain.lower())
    assert first.style == style


@pytest.mark.parametrize(("train", "many"), [(300, True), (1500, True), (9000, False)])
def test_many_passes_over_the_problems_are_said_with_a_budget_that_makes_fewer(train: int, many: bool):
    made = plan("gsm8k_1.5b", machine("RTX4090"), "data.source=file:a.csv", "budget.price_per_hour=0.4")
    made = replace(made, problems=Problems(train, 86, 14, epoch=train))
    first = conclusion(made)
    assert made.passes == pytest.approx(32 * estimated(made).updates / train)
    for said in (
        f"{train:,} problems train",
        "14 choose",
        "86 report",
        f"{made.passes:.{int(made.passes < 10)}f} passes",
    ):
        assert said in first.plain
    advised = re.search(r"budget\.minutes=(\d+) \(for ([\d.]+)\)", first.plain)
    assert (bool(advised), first.style) == (many, "bold yellow" if many else "bold green")
    if advised:
        less = made.again({"budget.minutes": float(advised[1])})
        assert 0.8 * MOST_PASSES < less.passes <= MOST_PASSES
        assert less.cost == pytest.approx(float(advised[2]), abs=0.005)


def test_gpus_are_planned_with_the_batch_and_with_one_that_grows():
    rows = list(scale(plan("r8_instruct", machine("A40")), [1, 2]))
    assert [(row.machine.gpus, row.config.learner.problems_per_update) for row in rows] == [(1, 16), (2, 16), (2, 32)]
    assert estimated(rows[0]).update_s > estimated(rows[1]).update_s


def test_only_a_plan_that_fits_a_gpu_is_scaled():
    with pytest.raises(BadInput, match=r"simulate=\[4\].*device="):
        list(scale(plan("quickstart", CPU), [4]))
    with pytest.raises(BadInput, match=r"simulate=\[1\]: .*T4.*model\.dtype"):
        list(scale(plan("r8_instruct", machine("T4")), [1]))
    for settings in (["simulate=[8]"], ["simulate=[0]", "plan=true"], ["simulate=[2000]", "plan=true"]):
        with pytest.raises(BadInput, match="simulate="):
            load(["conf=r8_instruct", *settings])
