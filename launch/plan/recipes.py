"""Print docs/reference/recipes.md, the plans of all recipes on six GPUs: `python -m launch.plan.recipes`."""

import sys

from conf.command import command
from conf.help import recipe_lines
from conf.load import load, recipe_names
from launch.hardware.machine import with_listed
from launch.plan.plan import make_plan
from launch.plan.refusal import remedy

PRICES = {"RTX3090": 0.25, "RTX4090": 0.40, "A40": 0.40, "L40S": 0.90, "A100-80": 1.60, "H100": 2.50}
"""GPU → example price per hour, US dollars."""

CORES = tuple(range(8))
"""CPU cores next to the GPU. The page does not depend on the machine that prints it."""

HEAD = """# Which recipe on which GPU

Planned updates per day, on one GPU with the recipe's own settings. They are **estimates**: no GPU was measured
yet, and NVIDIA's MPS may not work on yours. Settings behind "with" make a recipe fit. Prices are examples: give yours
as `budget.price_per_hour`.

    python launch/run.py conf=gsm8k plan=true device=4090 budget.price_per_hour=0.40

This page is generated: `python -m launch.plan.recipes` prints it, and a test compares them.
"""


def page() -> str:
    names = [name for name in recipe_names() if name not in ("base", "quickstart", "quickstart_warm", "mine")]
    planned = [name for name in names if f"r8_{name}" not in names and not name.startswith("paper")]  # no sweeps
    lines = recipe_lines()
    described = [f"| `{name}` | {text} |" for name, text in lines.items() if name in names]
    rows = [f"| `{name}` | {' | '.join(_cell(name, gpu) for gpu in PRICES)} |" for name in planned]
    prices = " | ".join(f"${24 * price:.2f}" for price in PRICES.values())
    head = [f"| recipe | {' | '.join(PRICES)} |", "|---" * (len(PRICES) + 1) + "|", f"| *a day* | {prices} |"]
    return "\n".join([HEAD, *head, *rows, "\n## The recipes\n", "| conf= | |", "|---|---|", *described, ""])


def _cell(recipe: str, gpu: str) -> str:
    """Return the updates that a recipe makes in a day on a GPU, and the settings it needs to fit."""
    machine, settings = with_listed(gpu, CORES), [f"conf={recipe}", "budget.hours=24"]
    plan = make_plan(load(settings), machine)
    needed = () if plan.fits else remedy(plan)
    if needed:
        plan = make_plan(load([*settings, *needed]), machine)
    if not plan.fits or not plan.estimate:
        return "no"
    return f"{plan.estimate.updates:,}" + (f" with `{' '.join(needed)}`" if needed else "")


@command("recipes", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
