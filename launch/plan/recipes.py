"""Print docs/reference/recipes.md, the plans of all recipes on eight GPUs: `python -m launch.plan.recipes`."""

import sys

from microbudget_rl.conf.catalogue import devices
from microbudget_rl.conf.command import command
from microbudget_rl.conf.help import recipe_lines
from microbudget_rl.conf.load import load, recipe_names
from microbudget_rl.conf.schema import affecting
from microbudget_rl.launch.hardware.machine import with_listed
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.launch.plan.refusal import remedy

GPUS = ("RTX3060Ti", "RTX3060", "RTX4060Ti", "RTX3090", "RTX4090", "A40", "A100-80", "H100")

CORES = tuple(range(8))
"""CPU cores next to the GPU, whatever machine prints the page. Plans for a GPU do not depend on them."""

HEAD = """# Which recipe on which GPU

Planned updates on one GPU with NVIDIA's MPS, in the recipe's budget: 24 hours unless stated. All are **estimates**: no
GPU has been measured.

- †: it fits with settings that the plan names, such as `learner.tokens_per_microbatch=2048`. They do not change what is
  trained.
- no: it does not fit, or only with a smaller `lora.rank` or `rollout.max_response_tokens`, which is another training.

For one GPU, with the cost:

    python launch/run.py conf=gsm8k plan=true device=4090 budget.price_per_hour=0.40
    python launch/run.py conf=gsm8k plan=true device=12GB    # not listed: by its memory

`python -m launch.plan.recipes` prints this page.
"""


def page() -> str:
    names = [name for name in recipe_names() if not name.startswith(("base", "mine", "mixed", "quick", "paper_small"))]
    planned = [name for name in names if f"r8_{name}" not in names and not name.startswith("paper")]  # no sweeps
    rows: dict[str, list[str]] = {}
    for name in planned:
        hours = load([f"conf={name}"]).budget.hours
        label = f"`{name}`" if hours == 24 else f"`{name}` ({hours:g} h)"
        rows.setdefault(" | ".join(_cell(name, gpu) for gpu in GPUS), []).append(label)
    memory = " | ".join(f"{devices()[gpu].memory_gib:.0f} GB" for gpu in GPUS)
    lines = [HEAD, f"| conf= | {' | '.join(GPUS)} |", "|---" * (len(GPUS) + 1) + "|", f"| | {memory} |"]
    lines += [f"| {', '.join(alike)} | {cells} |" for cells, alike in rows.items()]
    lines += ["\n## The recipes\n", "Recipes on Open-RS are evaluated on MATH-500.\n", "| conf= | |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in recipe_lines().items() if name in names]
    return "\n".join([*lines, ""]).replace(", evaluated on MATH-500", "")


def _cell(recipe: str, gpu: str) -> str:
    """Return the updates that a recipe makes in its budget on a GPU, with a mark if it needs other settings to fit."""
    machine, settings = with_listed(gpu, CORES), [f"conf={recipe}"]
    plan = make_plan(load(settings), machine)
    needed = () if plan.fits else remedy(plan)
    if {each.partition("=")[0] for each in needed} <= {*affecting("operation")}:
        plan = make_plan(load([*settings, *needed]), machine)
    if not plan.fits or not plan.estimate:
        return "no"
    return "–".join(f"{number:,}" for number in plan.estimate.update_range) + "†" * bool(needed)


@command("recipes", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
