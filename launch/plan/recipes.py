"""Print docs/reference/recipes.md, the plans of all recipes on common GPUs: `python -m launch.plan.recipes`."""

import sys
from collections.abc import Mapping, Sequence

from conf.command import command
from conf.help import recipe_lines
from conf.load import load, recipe_names
from launch.hardware.machine import with_listed
from launch.plan.plan import Plan, make_plan
from launch.plan.refusal import remedy
from launch.plan.view import FEWEST_UPDATES

PRICES = {
    "RTX3060": 0.08,
    "RTX4060Ti": 0.12,
    "RTX3090": 0.25,
    "RTX4090": 0.40,
    "A40": 0.40,
    "L40S": 0.90,
    "A100-80": 1.60,
    "H100": 2.50,
}
"""GPU → example price per hour, US dollars."""

SIZES = ("8GB", "12GB", "16GB", "24GB")
"""Sizes of memory that do not fit every recipe as it is."""

CORES = tuple(range(8))
"""CPU cores next to the GPU. The page does not depend on the machine that prints it."""

HEAD = """# Which recipe on which GPU

These are **plans**, for one GPU: no run has been made on one yet. This page is generated: `python -m
launch.plan.recipes` prints it, and a test compares them.

    python launch/run.py conf=gsm8k plan=true device=4090 budget.price_per_hour=0.40
    python launch/run.py conf=gsm8k plan=true device=12GB    # a GPU without a row in conf/devices.yaml: memory only

## What fits

"yes": with the recipe's own settings. "shared": too, because engine and learner share one copy of the weights
(`model.shared_weights`). Otherwise settings that make it fit: a smaller `lora.rank` or fewer
`rollout.max_response_tokens` change what is trained. Where 24 GB are enough, more are too.
"""

SPEED = """
## Updates in a day

Without and with NVIDIA's MPS, which may not work on yours; the gain is a usual one and was not measured. `*`: with the
settings of the table above, or similar ones. A plan with fewer than {fewest} updates says that nothing will be learned;
here it has a `!`. Prices are examples: give yours as `budget.price_per_hour`.
"""


def page() -> str:
    names = [name for name in recipe_names() if name not in ("base", "quickstart", "quickstart_warm", "mine")]
    planned = [name for name in names if f"r8_{name}" not in names and not name.startswith("paper")]  # no sweeps
    described = {f"`{name}`": (text,) for name, text in recipe_lines().items() if name in names}
    fits = {f"`{name}`": [_fit(name, size) for size in SIZES] for name in planned}
    updates = {"*a day*": [f"${24 * price:.2f}" for price in PRICES.values()]}
    updates |= {f"`{name}`": [_updates(name, gpu) for gpu in PRICES] for name in planned}
    tables = _table(["recipe", *SIZES], fits), _table(["recipe", *PRICES], updates), _table(["conf=", ""], described)
    speed = SPEED.format(fewest=FEWEST_UPDATES)
    return "\n".join([HEAD, tables[0], speed, tables[1], "\n## The recipes\n", tables[2], ""])


def _table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace(" --- ", "---") for line in lines)


def _planned(recipe: str, gpu: str) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of a day, and the settings it needs to fit."""
    machine, settings = with_listed(gpu, CORES), [f"conf={recipe}", "budget.hours=24"]
    plan = make_plan(load(settings), machine)
    needed = () if plan.fits else remedy(plan)
    return make_plan(load([*settings, *needed]), machine) if needed else plan, needed


def _fit(recipe: str, size: str) -> str:
    plan, needed = _planned(recipe, size)
    if not plan.fits:
        return "no"
    return f"`{' '.join(needed)}`" if needed else "shared" if plan.placement.weights else "yes"


def _updates(recipe: str, gpu: str) -> str:
    """Return the updates that a recipe makes in a day on a GPU."""
    plan, needed = _planned(recipe, gpu)
    if not plan.fits:
        return "no"
    numbers = sorted(each.estimate.updates for each in (plan, plan.other_mps) if each and each.estimate)
    few = "!" if numbers[-1] < FEWEST_UPDATES else ""
    return " – ".join(f"{number:,}" for number in numbers) + "*" * bool(needed) + few


@command("recipes", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
