"""Print docs/reference/recipes.md, the plans of all recipes on eight GPUs: `python -m launch.plan.recipes`."""

import sys

from conf.catalogue import devices
from conf.command import command
from conf.help import recipe_lines
from conf.load import load, recipe_names
from launch.hardware.machine import with_listed
from launch.plan.plan import make_plan
from launch.plan.refusal import remedy
from launch.plan.view import FEWEST_UPDATES

PRICES = {"RTX3060Ti": 0.06, "RTX3060": 0.08, "RTX4060Ti": 0.12, "RTX3090": 0.25, "RTX4090": 0.40, "A40": 0.40}
PRICES |= {"A100-80": 1.60, "H100": 2.50}
"""GPU → example price per hour, US dollars."""

CORES = tuple(range(8))
"""CPU cores next to the GPU. The page does not depend on the machine that prints it."""

HEAD = f"""# Which recipe on which GPU

Planned updates per day on one GPU, with NVIDIA's MPS. They are **estimates**, and a range: no GPU was measured yet, and
MPS may not work on yours. Settings behind "with" make a recipe fit; a smaller `lora.rank` or fewer
`rollout.max_response_tokens` change what is trained. "Too few" are fewer than {FEWEST_UPDATES} updates, in which
nothing will be learned. Prices are examples: give yours as `budget.price_per_hour`.

    python launch/run.py conf=gsm8k plan=true device=4090 budget.price_per_hour=0.40
    python launch/run.py conf=gsm8k plan=true device=12GB    # a GPU that is not listed: by its memory, without times

This page is generated: `python -m launch.plan.recipes` prints it, and a test compares them.
"""


def page() -> str:
    names = [name for name in recipe_names() if not name.startswith(("base", "mine", "mixed", "quickstart"))]
    planned = [name for name in names if f"r8_{name}" not in names and not name.startswith("paper")]  # no sweeps
    lines = recipe_lines()
    described = [f"| `{name}` | {text} |" for name, text in lines.items() if name in names]
    rows = [f"| `{name}` | {' | '.join(_cell(name, gpu) for gpu in PRICES)} |" for name in planned]
    prices = " | ".join(f"${24 * price:.2f}" for price in PRICES.values())
    memory = " | ".join(f"{devices()[gpu].memory_gib:.0f} GB" for gpu in PRICES)
    head = [f"| recipe | {' | '.join(PRICES)} |", "|---" * (len(PRICES) + 1) + "|", f"| *memory* | {memory} |"]
    rows = [*head, f"| *a day* | {prices} |", *rows]
    return "\n".join([HEAD, *rows, "\n## The recipes\n", "| conf= | |", "|---|---|", *described, ""])


def _cell(recipe: str, gpu: str) -> str:
    """Return the updates that a recipe makes in a day on a GPU, and the settings it needs to fit."""
    machine, settings = with_listed(gpu, CORES), [f"conf={recipe}", "budget.hours=24"]
    plan = make_plan(load(settings), machine)
    needed = () if plan.fits else remedy(plan)
    if needed:
        plan = make_plan(load([*settings, *needed]), machine)
    if not plan.fits or not plan.estimate:
        return "no"
    few = "too few: " if plan.estimate.updates < FEWEST_UPDATES else ""
    return (
        few
        + "–".join(f"{number:,}" for number in plan.estimate.update_range)
        + (f" with `{' '.join(needed)}`" if needed else "")
    )


@command("recipes", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
