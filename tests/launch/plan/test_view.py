import re
from dataclasses import replace

import pytest

from conf.catalogue import devices
from conf.errors import BadInput
from conf.load import load
from launch.plan.time import Calibration
from launch.plan.view import FEWEST_UPDATES, conclusion, scale
from tests.launch.plan.plans import CPU, estimated, machine, plan, shown


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("card", [None, *devices(), "unlisted"])
def test_plan_reads_within_the_screen(card: str | None, width: int) -> None:
    where = CPU if card is None else machine("A40" if card == "unlisted" else card)
    if card == "unlisted":
        where = replace(where, name="a new GPU", bandwidth=None, rates={})
    text = shown(plan("r256_instruct", where), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for words in ("rank 256", "knoveleng/open-rs", "rollout", "learner", "fit"):
        assert words in text


def test_plan_says_its_cost() -> None:
    text = shown(plan("r8_instruct", machine("A40"), "budget.price_per_hour=0.5"))
    said = re.search(
        r"Fits\. About ([\d,]+) updates in 24 h \(([\d,]+) with .*MPS\), for 12\.00 at 0\.50 per hour\.", text
    )
    assert said
    assert said[1] < said[2]


def test_the_first_line_names_the_updates_of_other_assumptions_until_one_is_measured() -> None:
    gpu, cpu = plan("gsm8k", replace(machine("RTX3060"), mps=True)), plan("quickstart", CPU)
    others = [[int(each) for each in re.findall(r"[(o] *(\d+)", conclusion(made).plain)] for made in (gpu, cpu)]
    assert gpu.other_mps
    assert others[0] == [estimated(gpu.other_mps).updates] < [estimated(gpu).updates]
    assert others[1][0] < estimated(cpu).updates < others[1][1]
    for made in (gpu, cpu):
        assert "(" not in conclusion(replace(made, calibration=Calibration(of="20 updates"))).plain


def test_plan_of_too_short_a_budget_says_so() -> None:
    assert re.search("hold no update: .*budget.minutes", shown(plan("quickstart", CPU, "budget.minutes=0.5")))
    warm = plan("quickstart", CPU, "warm_start.source=self", "warm_start.fraction=0.001")
    assert "warm_start.fraction=0.001" in conclusion(warm).plain


@pytest.mark.parametrize(("updates", "style"), [(FEWEST_UPDATES - 1, "bold yellow"), (FEWEST_UPDATES, "bold green")])
def test_plan_of_few_updates_warns(updates: int, style: str) -> None:
    first = conclusion(plan("quickstart", CPU, f"budget.updates={updates}"))
    assert f"about {updates} updates" in first.plain.lower()
    assert first.style == style
    assert " 8 min" not in first.plain


def test_the_first_line_names_no_other_number_of_updates_that_is_the_same() -> None:
    assert "(" not in conclusion(plan("gsm8k", replace(machine("RTX3060"), mps=True), "budget.updates=20")).plain


def test_gpus_are_planned_with_the_batch_and_with_one_that_grows() -> None:
    rows = list(scale(plan("r8_instruct", machine("A40")), [1, 2]))
    assert [(row.machine.gpus, row.config.learner.problems_per_update) for row in rows] == [(1, 16), (2, 16), (2, 32)]
    assert estimated(rows[0]).update_s > estimated(rows[1]).update_s


def test_only_a_plan_that_fits_a_gpu_is_scaled() -> None:
    with pytest.raises(BadInput, match=r"simulate=\[4\].*device="):
        list(scale(plan("quickstart", CPU), [4]))
    with pytest.raises(BadInput, match=r"simulate=\[1\]: .*T4.*model\.dtype"):
        list(scale(plan("r8_instruct", machine("T4")), [1]))
    for settings in (["simulate=[8]"], ["simulate=[0]", "plan=true"], ["simulate=[2000]", "plan=true"]):
        with pytest.raises(BadInput, match="simulate="):
            load(["conf=r8_instruct", *settings])
