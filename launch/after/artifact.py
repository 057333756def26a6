"""What is exported: written where there is room for it, and verified to be what was trained."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

from peft import PeftModel
from rich.console import Console
from safetensors import SafetensorError, safe_open
from transformers import GgufConfig

from actors.models.adapters import CONFIG_FILE, WEIGHTS_FILE
from actors.models.files import MODEL_FILES, weight_files
from conf.errors import BadInput
from launch.after.gguf_file import write_gguf
from launch.after.merged import write_merged
from launch.after.trained import Trained
from launch.after.verification import Verification, load, verify

BYTES = {"float32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
"""Bytes of a weight by number type; one without keeps those of the base model's file."""

SLACK = 1.02
"""Times what is counted: norms are in float32 everywhere, and a GGUF file names its tokens again."""


def check_room(folder: Path, trained: Trained, form: str, kind: str, remedy: str) -> None:
    """Raise BadInput if an export has no room where a folder is."""
    needed, free = needed_bytes(trained, form, kind), shutil.disk_usage(folder).free
    if free < needed:
        raise BadInput(
            f"{folder} has {free / 1e9:.2f} GB free, and the export takes {needed / 1e9:.2f} GB: make room, or {remedy}"
        )


def needed_bytes(trained: Trained, form: str, kind: str) -> int:
    """Return the size of an export before it is written, on the safe side."""
    if form == "adapter":
        return sum(file.stat().st_size for file in trained.adapter.iterdir())
    base = Path(trained.model_path)
    others = {file for pattern in MODEL_FILES for file in base.glob(pattern) if file.suffix != ".safetensors"}
    sizes = [file.stat().st_size for file in others]
    sizes += [int(BYTES[kind] * elements(file)) if kind else file.stat().st_size for file in weight_files(base)]
    return int(SLACK * sum(sizes))


def elements(file: Path) -> int:
    """Return the number of weights in a safetensors file."""
    with safe_open(file, framework="pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def write_verified(trained: Trained, form: str, kind: str, name: str, folder: Path, console: Console) -> Verification:
    """Write an export into an empty folder, verify it, and print by how much it differs. Return what was found.

    Raises BadInput if the disk fills meanwhile.
    """
    say = partial(console.print, soft_wrap=True)
    say(f"Writing {needed_bytes(trained, form, kind) / 1e9:.2f} GB …")
    loaded = partial(load, str(folder))
    try:
        if form == "merged":
            write_merged(trained, folder, whole=kind == "float32")
        elif form == "gguf":
            write_gguf(trained, kind, folder / f"{name}-{kind}.gguf")
            loaded = partial(loaded, gguf_file=f"{name}-{kind}.gguf", quantization_config=GgufConfig(dequantize=True))
        else:
            write_adapter(trained, folder)
            loaded = partial(load_adapter, trained, folder)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"the export cannot be written ({error}); make room, or name another folder") from None
    found = verify(trained, loaded, kind == "q8_0", say)
    console.print(found.table)
    return found


def load_adapter(trained: Trained, folder: Path) -> PeftModel:
    """Return the base model in float32 under the adapter in a folder."""
    return PeftModel.from_pretrained(load(trained.model_path), str(folder))


def write_adapter(trained: Trained, folder: Path, base: str = "") -> None:
    """Copy the adapter into an empty folder.

    base: the name that it gives its base model; if empty the model's id on the hub, or its path here.
    """
    shutil.copyfile(trained.adapter / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    stated = json.loads((trained.adapter / CONFIG_FILE).read_text())
    if base or trained.base_on_hub:
        stated["base_model_name_or_path"] = base or trained.config.model.path
    (folder / CONFIG_FILE).write_text(json.dumps(stated, indent=2) + "\n")
