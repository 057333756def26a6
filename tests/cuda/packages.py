"""The packages: launch/locks/cuda.txt, files of the wheels, code for each GPU, DeepSpeed's Adam, private names."""

import csv
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from sysconfig import get_path

from tests.conftest import ROOT
from tests.cuda.absent import CARDS, attempt, pretend
from tests.test_private_apis import ROWS, check

LOCK = ROOT / "launch/locks/cuda.txt"

CAPABILITIES = {capability for capability, _ in CARDS.values()}
BINARIES = {
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": {*CAPABILITIES} - {90},
    "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": {90},
    "vllm/_C_stable_libtorch.abi3.so": CAPABILITIES,
    "torch/lib/libtorch_cuda.so": CAPABILITIES,
    "torch/lib/libtorch_cuda_linalg.so": CAPABILITIES,
}
"""Compute capabilities of the GPUs on which a library has to run."""


def resolve(python: str) -> None:
    """Let uv resolve the project under the lock. Raises if it cannot, or needs a package that the lock does not pin."""
    options = [f"--constraint={LOCK}", f"--python-version={python}", "--extra=cuda", "--extra=dev"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--no-annotate", "--quiet", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    texts = done.stdout, LOCK.read_text().replace("_", "-")
    needed, pinned = ({*re.findall("^([a-z][^=]*)==", text, re.MULTILINE)} for text in texts)
    if loose := needed - pinned - {"pip"}:
        raise ValueError(f"the lock does not pin {', '.join(loose)}")


def written_once() -> None:
    """Raise if two wheels write one file, unless they write the same."""
    writers = defaultdict[str, dict[str, str]](dict)
    for record in Path(get_path("purelib")).glob("*.dist-info/RECORD"):
        for file, digest, _ in csv.reader(record.open()):
            writers[file][record.parent.stem] = digest
    writers.pop("build_backend.py", None)  # of two packages, and nothing imports it
    shared = {file: by for file, by in writers.items() if len(by) > 1}
    if different := [f"{file} by {' and '.join(by)}" for file, by in shared.items() if len({*by.values()}) > 1]:
        raise ValueError(f"{len(different)} files differ, such as {different[0]}")


def serves(library: str, capabilities: set[int]) -> None:
    """Raise if a library has no code for a GPU: code of its own major version, or PTX for the driver."""
    folder = get_path("purelib")
    command = [f"{folder}/triton/backends/nvidia/bin/cuobjdump", "-lelf", "-lptx", f"{folder}/{library}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code = {(int(of), kind) for of, kind in re.findall(r"\.sm_(\d+)(a?\.cubin|\.ptx)$", listed, re.MULTILINE)}
    compiled = "fa2" in library  # by the driver, for an RTX 5090
    for each in capabilities:
        if not any(of <= each and (compiled if kind == ".ptx" else of // 10 == each // 10) for of, kind in code):
            raise ValueError(f"nothing for {each} in {sorted(code)}")


def compiles() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "microbudget_rl.learner.cpu_adam"]
        environment = os.environ | {"TORCH_EXTENSIONS_DIR": folder}
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)


def names() -> None:
    pretend("A40")
    for row in ROWS:
        attempt("private names", row["name"], partial(check, row))


def ask() -> None:
    for python in ("3.11", "3.12", "3.13"):
        attempt("lock resolves", f"Python {python}", partial(resolve, python))
    attempt("one wheel per file", "all", written_once)
    for library, capabilities in BINARIES.items():
        attempt("code for each GPU", library, partial(serves, library, capabilities))
    attempt("DeepSpeed's Adam compiles", "for the CPU, beside CUDA", compiles)
    names()
