"""Make of what a run has trained a model that other software loads, and verify it.

    python launch/export.py RUN_FOLDER [format=merged|gguf|adapter] [type=float32|q8_0|f16] [to=FOLDER]
        [checkpoint=latest|best|update-000040]

Examples:

    python launch/export.py runs/quickstart                            # for transformers, vLLM and the like
    python launch/export.py runs/quickstart format=gguf type=q8_0      # one file, for llama.cpp and the like
    python launch/export.py runs/first format=adapter to=adder checkpoint=update-000040

merged: a folder in Hugging Face format, in the number type of the base model, or of the `type` float32, which keeps the
smallest change. gguf: one file, of the `type` q8_0 (half the size) or f16. adapter: the plain PEFT adapter. It is in
exports/ unless `to` names another folder, and appears once it has been verified: exit code 1 and no folder if it is not
what was trained.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from conf.arguments import run_and_options
from conf.command import PlainConsole, command, near
from conf.errors import BadInput
from launch.after.trained import LATEST, Trained, carry_out, find_trained

FORMATS = ("merged", "gguf", "adapter")
TYPES = {"merged": ("", "float32"), "gguf": ("q8_0", "f16"), "adapter": ("",)}
"""Number types of each format, the usual one first; empty for that of the base model, or the adapter's own."""

OPTIONS = {"format": FORMATS, "to": (), "checkpoint": (), "type": ("float32", "q8_0", "f16")}

RECORD = "export.json"
"""In the folder of an export: where it is from and what verified it."""

COMMON = {"merged": "transformers, vLLM", "gguf": "llama.cpp", "adapter": "peft, vLLM"}
"""Software that loads a format."""


@command("export.py", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 exported, 1 not what was trained, 2 bad input, 130 or 143 interrupted."""
    folder, given = run_and_options(arguments, OPTIONS)

    def work() -> int:
        trained = find_trained(folder, given.get("checkpoint", LATEST))
        return export(trained, given.get("format", "merged"), given.get("type", ""), given.get("to"), PlainConsole())

    return carry_out(work)


def export(trained: Trained, form: str, kind: str, to: str | None, console: Console) -> int:
    """Write an export beside its place, verify it, and put it there. Return the exit code."""
    if kind and kind not in TYPES[form]:
        others = [other for other, kinds in TYPES.items() if kind in kinds]
        raise BadInput(f"type={kind}: is not for format={form}; give format={others[0]}, or leave it out")
    kind = kind or TYPES[form][0]
    name = f"{trained.run.path.resolve().name}-{trained.checkpoint.name}"
    target = Path(to) if to else Path("exports", f"{name}-{kind or form}")
    with _writable(target):
        parent = place_of(target)
    console.print(f"Exporting {near(trained.checkpoint)} as {form} …", soft_wrap=True)
    from launch.after.artifact import check_room, write_verified
    from launch.after.gguf_file import check_convertible

    if form == "gguf":
        check_convertible(trained)
    check_room(parent, trained, form, kind, "give to=FOLDER elsewhere")
    with _writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent)
    with place as scratch:
        made = Path(scratch) / "export"
        made.mkdir()
        found = write_verified(trained, form, kind, name, made, console)
        if found.fault:
            console.print(f"Not exported: {found.fault}", soft_wrap=True)
            return 1
        origin = {"run": str(trained.run.path.resolve()), "checkpoint": trained.checkpoint.name, "format": form}
        record = {**origin, "base": trained.config.model.path, **asdict(found)}
        (made / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        made.rename(target)
    console.print(f"{target}: verified, for {COMMON[form]}", soft_wrap=True)
    return 0


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"to={target}: cannot be written to ({error.strerror}); name another folder") from None


def place_of(target: Path) -> Path:
    """Return the folder, of those that are there, in which a new one is made. Raises BadInput if none can be."""
    if target.exists():
        raise BadInput(f"{target} is there already: delete it, or give to=ANOTHER")
    parent = next(parent for parent in target.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise BadInput(f"to={target}: {parent} is no folder; name another")
    return parent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
