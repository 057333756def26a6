import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from conf.catalogue import devices
from launch.plan.options import options
from launch.plan.view import render
from tests.launch.plan.plans import CPU, machine, plan


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("card", [None, *devices(), "unlisted"])
def test_plan_reads_within_the_screen(card: str | None, width: int) -> None:
    where = CPU if card is None else machine("A40" if card == "unlisted" else card)
    if card == "unlisted":
        where = replace(where, name="a new card", bandwidth=None, rates={})
    made = plan("r256_instruct", where)
    screen = StringIO()
    Console(width=width, file=screen).print(render(made))
    text = screen.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for words in ("rank 256", "knoveleng/open-rs", "24 h", "rollout", "learner", "fit"):
        assert words in text


def test_plan_of_a_deterministic_run_says_how_and_at_what_cost() -> None:
    made = plan("quickstart", CPU, "run.deterministic=true", "budget.updates=20")
    screen = StringIO()
    Console(width=200, file=screen).print(render(made, options(made)))
    assert "an engine answers one request at a time" in screen.getvalue()
    assert re.search(r"run\.deterministic=false +about 20 updates, [\d.]+ s each", screen.getvalue())


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
