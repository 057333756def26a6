from io import StringIO

import pytest
from rich.console import Console

from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import load
from microbudget_rl.launch.plan.choice import BESIDE_MINUTES, for_each_gpu, render_choice
from tests.launch.plan.plans import estimated, machine, plan

ASKED = ["conf=gsm8k", "plan=true", "device=[3060,4090]"]


def test_a_list_of_gpus_is_a_plan_for_each() -> None:
    assert for_each_gpu(["conf=gsm8k", "device=A40", "budget.price_per_hour=1"]) == []
    one, other = (load(each) for each in for_each_gpu([*ASKED, "budget.price_per_hour=[0.08,0.4]"]))
    assert (one.device, other.device) == ("RTX3060", "RTX4090")
    assert (one.budget.price_per_hour, other.budget.price_per_hour) == (0.08, 0.4)
    assert [load(each).budget.price_per_hour for each in for_each_gpu([*ASKED, "budget.price_per_hour=1"])] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["conf=gsm8k", "device=[3060,4090]"], r"device=\[3060,4090\]: .*plan=true"),
        (["conf=gsm8k", "plan=true", "budget.price_per_hour=[1,2]"], r"price_per_hour=\[1,2\]: .*device"),
        ([*ASKED, "budget.price_per_hour=[1,2,3]"], "3 for 2 GPUs"),
    ],
)
def test_other_lists_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        for_each_gpu(arguments)


def test_the_whole_bill_adds_set_up_and_copying_to_the_run() -> None:
    made = plan("gsm8k", machine("RTX4090"), "budget.price_per_hour=60")
    screen, hours = StringIO(), estimated(made).spent_s / 3600
    Console(width=100, file=screen).print(render_choice([made, plan("gsm8k", machine("T4"))]))
    _, row, none, *_ = (line.split() for line in screen.getvalue().splitlines())
    assert (row[0], row[1], row[2], none) == ("RTX4090", "yes", f"{estimated(made).updates:,}", ["T4", "no"])
    price, each, bill = (float(cell.replace(",", "")) for cell in row[-3:])
    assert price == pytest.approx(60 * hours)
    assert each == pytest.approx(1000 * price / estimated(made).updates, abs=0.01)
    assert bill == pytest.approx(price + sum(BESIDE_MINUTES.values()))
