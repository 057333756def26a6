"""Which GPU to rent: the plans of one run on several, side by side, with the whole bill."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from microbudget_rl.actors.formats import duration, money
from microbudget_rl.conf.arguments import pairs
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import read_value
from microbudget_rl.launch.plan.memory import misfit
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.launch.plan.refusal import advice
from microbudget_rl.launch.plan.view import plain_table

DEVICE, PRICE = "device", "budget.price_per_hour"

BESIDE_MINUTES = {"set-up": 10, "the doctor": 15, "copying": 5}
"""Minutes of a rented GPU beside the run: at most for the doctor's report, assumed for the rest."""


def for_each_gpu(arguments: Sequence[str]) -> list[list[str]]:
    """Return the command line of each GPU of a list `device=[…]`, with its price; empty without lists. Raises
    BadInput for lists that do not belong together, without `plan=true`, or with what is for one GPU.
    """
    given = pairs(arguments, "conf=gsm8k or device=[3060,A40]")
    values = {key: read_value(key, given.get(key, "null"), axis=True) for key in (DEVICE, PRICE)}
    lists = {key: value for key, value in values.items() if isinstance(value, list)}
    gpus = lists.get(DEVICE, [])
    prices = lists.get(PRICE, [given.get(PRICE, "null")] * len(gpus))
    more = {"show", "simulate"} & given.keys()
    if lists and (more or not len(gpus) == len(prices) > 0 or read_value("plan", given.get("plan", "")) is not True):
        said = " ".join(f"{key}={given[key]}" for key in (*lists, *more))
        raise BadInput(f"{said}: to compare GPUs, give only {DEVICE}=[…], plan=true and a price for each, or for all")
    others = [argument for argument in arguments if argument.partition("=")[0] not in (DEVICE, PRICE)]
    return [[*others, f"{DEVICE}={gpu}", f"{PRICE}={price}"] for gpu, price in zip(gpus, prices, strict=True)]


def render_choice(plans: Sequence[Plan]) -> RenderableType:
    """Show plans as one table, a GPU per row, and what to do about those that do not fit."""
    table = plain_table("GPU", "fits", "updates", "run time", "price", "per 1,000 updates", "whole bill")
    for plan in plans:
        table.add_row(plan.machine.name, *(_cells(plan) if plan.fits else ["no"]))
    misfits = (f"{plan.machine.name}: {misfit(plan)}; {advice(plan)}.\n" for plan in plans if not plan.fits)
    parts = ", ".join(f"{minutes} minutes of {what}" for what, minutes in BESIDE_MINUTES.items())
    note = f"{''.join(misfits)}The whole bill adds about {parts}. All figures are planned."
    return Group(table, Text(note, style="dim"))


def _cells(plan: Plan) -> list[str]:
    """Return the cells of a plan that fits, after its GPU."""
    row = ["yes", "unknown" if plan.updates is None else f"{plan.updates:,}", duration(3600 * plan.hours)]
    if (cost := plan.cost) is None:
        return row
    bill = cost * (1 + sum(BESIDE_MINUTES.values()) / 60 / plan.hours)
    return [*row, money(cost), money(1000 * cost / plan.updates) if plan.updates else "", money(bill)]
