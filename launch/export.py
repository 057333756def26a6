"""Write a run's trained model in a format for other software, and verify it.

    python launch/export.py RUN_FOLDER [format=merged|gguf|adapter] [type=float32|q8_0|f16] [to=FOLDER]
        [checkpoint=latest|best|update-…]

Examples:

    python launch/export.py runs/quickstart                            # for transformers, vLLM and the like
    python launch/export.py runs/quickstart format=gguf type=q8_0      # one file, for llama.cpp and the like
    python launch/export.py runs/first format=adapter to=adder checkpoint=latest

merged: a folder in Hugging Face format, in the base model's dtype; type=float32 loses nothing. gguf: one file, with
type=q8_0 (half the size) or type=f16. adapter: the plain PEFT adapter. The export appears in exports/, or in the folder
that `to` names, after it is verified. If it does not agree with the trained adapter, nothing is exported and the exit
code is 1.
"""

import contextlib
import os
import sys
from pathlib import Path

from rich.console import Console

from actors.models.prompts import reminder
from actors.storage.folders import read_mark
from conf.arguments import run_and_options
from conf.command import PlainConsole, command, near
from conf.errors import BadInput
from conf.signals import scratch_folder
from launch.after.trained import Trained, find_trained, prepare_torch

TYPES = {"merged": ("", "float32"), "gguf": ("q8_0", "f16"), "adapter": ("",)}
"""Format → its dtypes, the default first; empty means the dtype of the base model or of the adapter."""

LOADED_BY = {
    "merged": 'transformers: AutoModelForCausalLM.from_pretrained("{target}"), or: vllm serve {target}',
    "gguf": "llama.cpp: llama-cli -m {target}/{name}-{kind}.gguf",
    "adapter": 'peft: PeftModel.from_pretrained(BASE, "{target}"), where BASE is the loaded {base}',
}
"""Format → how other software loads it."""

OPTIONS = {"format": tuple(TYPES), "to": (), "checkpoint": (), "type": ("float32", "q8_0", "f16")}


@command("export.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 exported, 1 verification failed, 2 bad input, 130 or 143 interrupted."""
    folder, given = run_and_options(arguments, OPTIONS)
    prepare_torch()
    trained = find_trained(folder, given.get("checkpoint", ""))
    return export(trained, given.get("format", "merged"), given.get("type", ""), given.get("to"), PlainConsole())


def export(trained: Trained, form: str, kind: str, to: str | None, console: Console) -> int:
    """Write an export into a temporary folder, verify it, and rename it. Return the exit code."""
    if kind and kind not in TYPES[form]:
        others = [other for other, kinds in TYPES.items() if kind in kinds]
        raise BadInput(f"type={kind}: not a type of format={form}; give format={others[0]}, or leave it out")
    kind = kind or TYPES[form][0]
    name = f"{trained.run.path.resolve().name}-{trained.checkpoint.name}"
    target = Path(to) if to else Path("exports", f"{name}-{kind or form}")
    if os.path.lexists(target):
        raise BadInput(f"{target} already exists: delete it, or give to=ANOTHER")
    if ours := next(filter(read_mark, target.resolve().parents), None):
        raise BadInput(f"to={target}: {ours} is only for the files of a run or a sweep; give to=ANOTHER")
    console.print(f"Exporting {near(trained.checkpoint)} as {form} …")
    from launch.after.artifact import write_verified
    from launch.after.gguf_file import check_convertible

    if form == "gguf":
        check_convertible(trained)
    with contextlib.ExitStack() as place:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = place.enter_context(scratch_folder(f".{target.name}-", target.parent))
        except OSError as error:
            raise BadInput(f"to={target}: cannot be written to ({error.strerror}); name another folder") from None
        (made := scratch / "export").mkdir()
        if fault := write_verified(trained, form, kind, name, made, console):
            console.print(f"Not exported: {fault}")
            return 1
        made.rename(target)
    console.print(f"{target}: verified")
    how = LOADED_BY[form].format(target=target, name=name, kind=kind, base=trained.base_name)
    console.print(f"Load it with {how}", *reminder(trained.config), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
