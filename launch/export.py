"""Merge a run's trained adapter into its base model, and verify the result.

    python launch/export.py RUN_FOLDER [to=FOLDER] [type=float32] [checkpoint=latest|best|update-…]

Examples:

    python launch/export.py runs/quickstart
    python launch/export.py runs/quickstart type=float32
    python launch/export.py runs/first to=adder checkpoint=latest

The merged model is a folder in Hugging Face format, for transformers or vLLM, in the base model's dtype; type=float32
keeps the whole change. It appears in exports/, or in the folder that `to` names, after it is verified. If it does not
agree with the trained adapter, nothing is exported and the exit code is 1.
"""

import os
import sys
from pathlib import Path

from rich.console import Console

from microbudget_rl.actors.models.prompts import reminder
from microbudget_rl.actors.storage.folders import read_mark
from microbudget_rl.conf.arguments import run_and_options
from microbudget_rl.conf.command import PlainConsole, command, near
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.trained.policy import Trained, find_trained, prepare_torch

OPTIONS = {"to": (), "checkpoint": (), "type": ("float32",)}


@command("export.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 exported, 1 verification failed, 2 bad input, 130 or 143 interrupted."""
    folder, given = run_and_options(arguments, OPTIONS)
    prepare_torch()
    trained = find_trained(folder, given.get("checkpoint", ""))
    name = "-".join((trained.run.path.resolve().name, trained.checkpoint.name, given.get("type", "merged")))
    return export(trained, "type" in given, Path(given.get("to") or Path("exports", name)), PlainConsole())


def export(trained: Trained, whole: bool, target: Path, console: Console) -> int:
    """Write an export into a temporary folder, verify it, and rename it. Return the exit code."""
    if os.path.lexists(target):
        raise BadInput(f"{target} already exists: delete it, or give to=ANOTHER")
    if ours := next(filter(read_mark, target.resolve().parents), None):
        raise BadInput(f"to={target}: {ours} is only for the files of a run or a sweep; give to=ANOTHER")
    console.print(f"Exporting {near(trained.checkpoint)} …")
    from microbudget_rl.launch.trained.merged import write_verified

    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{target.name}-", target.parent) as scratch:
        (made := scratch / "export").mkdir()
        if fault := write_verified(trained, whole, made, console):
            console.print(f"Not exported: {fault}")
            return 1
        made.rename(target)
    console.print(f"{target}: verified")
    how = f'AutoModelForCausalLM.from_pretrained("{target}")'
    console.print(f"Load it with transformers, {how}, or: vllm serve {target}", *reminder(trained.config), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
