"""Print docs/reference/recipes.md, the plans of all recipes on eight GPUs: `python -m launch.plan.recipes`."""

import sys

from microbudget_rl.conf.catalogue import devices
from microbudget_rl.conf.command import command
from microbudget_rl.conf.help import recipe_lines
from microbudget_rl.conf.load import load, recipe_names
from microbudget_rl.launch.hardware.machine import with_listed
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.launch.plan.refusal import remedy

GPUS = ("RTX3060Ti", "RTX3060", "RTX4060Ti", "RTX3090", "RTX4090", "A40", "A100-80", "H100")

CORES = tuple(range(8))
"""CPU cores next to the GPU. The page does not depend on the machine that prints it."""

HEAD = """# Which recipe on which GPU

Planned updates per day on one GPU, with NVIDIA's MPS. They are **estimates**, and a range: no GPU was measured yet, and
MPS may not work on yours. Settings behind "with" make a recipe fit; a smaller `lora.rank` or fewer
`rollout.max_response_tokens` change what is trained. The plan also names the cost at `budget.price_per_hour`.

    python launch/run.py conf=gsm8k plan=true device=4090 budget.price_per_hour=0.40
    python launch/run.py conf=gsm8k plan=true device=12GB    # a GPU that is not listed: by its memory, without times

This page is generated: `python -m launch.plan.recipes` prints it, and a test compares them.
"""


def page() -> str:
    names = [name for name in recipe_names() if not name.startswith(("base", "mine", "mixed", "quickstart"))]
    planned = [name for name in names if f"r8_{name}" not in names and not name.startswith("paper")]  # no sweeps
    lines = recipe_lines()
    described = [f"| `{name}` | {text} |" for name, text in lines.items() if name in names]
    memory = " | ".join(f"{devices()[gpu].memory_gib:.0f} GB" for gpu in GPUS)
    rows = [f"| recipe | {' | '.join(GPUS)} |", "|---" * (len(GPUS) + 1) + "|", f"| *memory* | {memory} |"]
    rows += [f"| `{name}` | {' | '.join(_cell(name, gpu) for gpu in GPUS)} |" for name in planned]
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
    updates = "–".join(f"{number:,}" for number in plan.estimate.update_range)
    return updates + (f" with `{' '.join(needed)}`" if needed else "")


@command("recipes", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
