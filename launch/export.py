"""Write a run's trained model, with a model card, into a folder to load, serve or upload.

    python launch/export.py RUN_FOLDER [to=FOLDER] [type=adapter|float32] [checkpoint=latest|best|update-…]

Examples:

    python launch/export.py runs/quickstart
    python launch/export.py runs/quickstart type=float32
    python launch/export.py runs/first to=adder type=adapter checkpoint=latest

By default, the adapter is merged into its base model: a folder in Hugging Face format, for transformers or vLLM, in the
base model's dtype; type=float32 keeps the whole change. It appears in exports/, or in the folder that `to` names, after
it is verified. If it does not agree with the trained adapter, nothing is exported and the exit code is 1.

type=adapter exports the adapter alone, in PEFT format. The export of a finished run has a model card and a folder
training/ with the run's report, settings and metrics, without paths of this machine: it can be uploaded as it is.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from rich.console import Console

from microbudget_rl.actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from microbudget_rl.actors.models.prompts import reminder
from microbudget_rl.actors.storage.folders import read_mark
from microbudget_rl.conf.arguments import run_and_options
from microbudget_rl.conf.command import PlainConsole, command, near
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.signals import scratch_folder
from microbudget_rl.launch.trained.policy import Trained, find_trained, prepare_torch

OPTIONS = {"to": (), "checkpoint": (), "type": ("adapter", "float32")}


@command("export.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 exported, 1 verification failed, 2 bad input, 130 or 143 interrupted."""
    folder, given = run_and_options(arguments, OPTIONS)
    prepare_torch()
    trained = find_trained(folder, given.get("checkpoint", ""))
    kind = given.get("type", "merged")
    name = "-".join((trained.run.path.resolve().name, trained.checkpoint.name, kind))
    return export(trained, kind, Path(given.get("to") or Path("exports", name)), PlainConsole())


def export(trained: Trained, kind: str, target: Path, console: Console) -> int:
    """Write an export into a temporary folder, verify it, and rename it. Return the exit code.
    kind: adapter, which is a copy from a checkpoint with checksums; merged or float32, which are new and verified.
    """
    if os.path.lexists(target):
        raise BadInput(f"{target} already exists: delete it, or give to=ANOTHER")
    if ours := next(filter(read_mark, target.resolve().parents), None):
        raise BadInput(f"to={target}: {ours} is only for the files of a run or a sweep; give to=ANOTHER")
    console.print(f"Exporting {near(trained.checkpoint)} …")
    from microbudget_rl.launch.trained.card import write_card
    from microbudget_rl.launch.trained.merged import write_verified

    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{target.name}-", target.parent) as scratch:
        (made := scratch / "export").mkdir()
        if kind == "adapter":
            write_adapter(trained, made)
        elif fault := write_verified(trained, kind == "float32", made, console):
            console.print(f"Not exported: {fault}")
            return 1
        if trained.run.finished() is not None:
            write_card(trained, kind == "adapter", made, target.name)
        made.rename(target)
    with_adapter = f'PeftModel.from_pretrained(base, "{target}")'
    merged = f'verified; AutoModelForCausalLM.from_pretrained("{target}") or vllm serve {target}'
    console.print(f"{target}: {with_adapter if kind == 'adapter' else merged} loads it")
    console.print(*reminder(trained.config), sep="\n")
    return 0


def write_adapter(trained: Trained, folder: Path) -> None:
    """Copy the adapter into a folder; its base model is named as others know it."""
    shutil.copyfile(trained.adapter / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    settings = json.loads((trained.adapter / CONFIG_FILE).read_text())
    settings["base_model_name_or_path"] = trained.base_name
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
