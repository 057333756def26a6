import re
import subprocess
import sys
from dataclasses import replace

import pytest

from actors.formats import duration
from conf.catalogue import devices
from tests.launch.plan.plans import CPU, machine, plan, shown


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


def test_plan_says_costs_and_other_choices() -> None:
    text = shown(plan("r8_instruct", machine("A40"), "budget.price_per_hour=0.5"))
    assert re.search(r"Fits\. About [\d,]+ updates in 24 h, for 12\.00 at 0\.50 per hour\.", text)
    assert re.search(r"2 × A40 +about [\d,]+ updates, [\d.]+ s each", text)


def test_plan_of_too_short_a_budget_says_so() -> None:
    assert re.search("hold no update: .*budget.minutes", shown(plan("quickstart", CPU, "budget.minutes=0.5")))


def test_plan_of_a_deterministic_run_says_its_cost() -> None:
    text = shown(plan("quickstart", CPU, "run.deterministic=true", "budget.updates=20"))
    assert "in turn" in text
    assert re.search(r"run\.deterministic=false +about 20 updates, [\d.]+ s each", text)


def test_planning_needs_no_framework() -> None:
    script = (
        "import sys; from conf.load import load; from launch.hardware.machine import detect;"
        "from launch.plan.options import options, scale;"
        "from launch.plan.plan import make_plan;"
        "from launch.plan.view import render, render_scaling;"
        "machine = detect('A40'); plan = make_plan(load(['conf=r256_instruct']), machine);"
        "render(plan, options(plan));"
        "render_scaling(scale(plan, machine, [1, 2]));"
        "assert not {'torch', 'ray', 'vllm', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (90, "90 s"), (600, "10 min"), (86400, "24 h"), (259200, "3 days")]
)
def test_durations_have_a_persons_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
