from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch.plan.choice import BESIDE_MINUTES, for_each_gpu, render_choice
from tests.launch.plan.plans import estimated, machine, plan

ASKED = ["conf=gsm8k", "plan=True", "device=[3060,4090]"]


def test_a_list_of_gpus_is_a_plan_for_each():
    assert for_each_gpu(["conf=gsm8k", "device=A40"]) == []
    one, other = (load(each) for each in for_each_gpu([*ASKED, "budget.price_per_hour=[0.08,0.4]"]))
    assert (one.device, one.budget.price_per_hour) == ("RTX3060", 0.08)
    assert (other.device, other.budget.price_per_hour) == ("RTX4090", 0.4)
    assert [load(each).budget.price_per_hour for each in for_each_gpu([*ASKED, "budget.price_per_hour=1"])] == [1, 1]


@pytest.mark.parametrize("more", ["plan=false", "device=3060", "device=[]", "budget.price_per_hour=[1,2,3]", "show=1"])
def test_other_lists_are_refused(more: str):
    given = dict(each.split("=") for each in [*ASKED, "budget.price_per_hour=[1,2]", more])
    with pytest.raises(BadInput, match=r"price_per_hour=\[1,2.*device=\[…\], plan=true"):
        for_each_gpu([f"{key}={value}" for key, value in given.items()])


def test_the_whole_bill_adds_set_up_and_copying_to_the_run():
    card = replace(machine("RTX4090"), name="NVIDIA GeForce RTX 4090")
    made = plan("gsm8k", card, "budget.price_per_hour=60")
    screen, minutes = StringIO(), estimated(made).spent_s / 60
    Console(width=80, file=screen).print(render_choice([made, plan("gsm8k", machine("T4"))]))
    _, row, _, none, *_ = (line.split() for line in screen.getvalue().splitlines())
    assert (row[-7:-5], none) == (["yes", str(estimated(made).updates)], ["T4", "no"])
    assert list(map(float, row[-3:])) == pytest.approx(
        [minutes, 1000 * minutes / estimated(made).updates, minutes + sum(BESIDE_MINUTES.values())], abs=0.01
    )
