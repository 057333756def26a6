"""Plans of recipes on machines that are not here."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from microbudget_rl.conf.load import load
from microbudget_rl.launch.hardware.machine import GIB, Machine, with_listed
from microbudget_rl.launch.plan.plan import Plan, make_plan
from microbudget_rl.launch.plan.time import Estimate
from microbudget_rl.launch.plan.view import render_plan
from microbudget_rl.launch.session.admission import resolve_model

CPU = Machine("a laptop", (0, 1), 16 * GIB, 0, 0, 10e9, {"bfloat16": 0.3e12, "float32": 0.2e12})


def machine(card: str, gpus: int = 1, host_memory: int | None = 128 * GIB) -> Machine:
    listed = with_listed(card, tuple(range(16)))
    return replace(listed, host_memory=host_memory, gpus=gpus, present=True, mps=False)


def plan(recipe: str, where: Machine, *overrides: str) -> Plan:
    return make_plan(resolve_model(load([f"conf={recipe}", *overrides]), where), where)


def estimated(made: Plan) -> Estimate:
    assert made.estimate
    return made.estimate


def entry(made: Plan, what: str) -> float:
    return next(memory.bytes for memory in made.memory if memory.what == what)


def shown(made: Plan, width: int = 200) -> str:
    """Return what a person sees of a plan."""
    screen = StringIO()
    Console(width=width, file=screen).print(render_plan(made))
    return screen.getvalue()
