"""The packages: launch/locks/cuda.txt, files of the wheels, code for each GPU, DeepSpeed's Adam, private names."""

import csv
import mmap
import os
import re
import struct
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

BINARIES = {
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so": (80, 86, 89),
    "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": (90,),
    **dict.fromkeys(("vllm/_C_stable_libtorch.abi3.so", "torch/lib/libtorch_cuda.so"), tuple(CARDS)),
    "torch/lib/libtorch_cuda_linalg.so": tuple(CARDS),
}
"""Compute capabilities whose machine code a library has. For 120 the driver makes FlashAttention's from PTX, once."""


def named(text: str) -> set[str]:
    """Return the packages of a file of requirements."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {line.partition("==")[0].lower().replace("_", "-") for line in lines}


def resolve(python: str, *extras: str) -> None:
    """Let uv resolve the project under the lock. Raises if it cannot, or needs a package that the lock does not pin."""
    options = [f"--constraint={LOCK}", f"--python-version={python}", *(f"--extra={extra}" for extra in extras)]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--no-annotate", "--quiet", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    if loose := named(done.stdout) - named(LOCK.read_text()) - {"pip"}:
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


def code_in(library: Path) -> set[tuple[int, int]]:
    """Return the architectures of a library's fat binaries, each with its kind: 1 for PTX, 2 for machine code."""
    found = set[tuple[int, int]]()
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for header in re.finditer(re.escape(struct.pack("<IHH", 0xBA55ED50, 1, 16)), data):
            part = header.end() + 8
            end = part + int.from_bytes(data[header.end() : part], "little")
            while part < end:
                kind, before, size, architecture = struct.unpack_from("<H2xIQ12xI", data, part)
                found.add((kind, architecture))
                part += before + size
    return found


def serves(library: str, capability: int, kind: int = 2) -> None:
    """Raise if a library has no code that a GPU of this capability runs: machine code is of its own major version."""
    code = code_in(Path(get_path("purelib"), library))
    if not any(each == kind and (kind == 1 or of // 10 == capability // 10) and of <= capability for each, of in code):
        raise ValueError(f"its code is {sorted(code)}")


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
        for extras in (["cuda"], ["cuda", "dev"]):
            attempt("lock resolves", f"Python {python}, {' and '.join(extras)}", partial(resolve, python, *extras))
    attempt("one wheel per file", "all", written_once)
    for library, capabilities in BINARIES.items():
        for capability in capabilities:
            attempt("code for a GPU", f"{capability} {library}", partial(serves, library, capability))
    attempt("code for a GPU", "120 FlashAttention's PTX", partial(serves, next(iter(BINARIES)), 120, 1))
    attempt("DeepSpeed's Adam compiles", "for the CPU, beside CUDA", compiles)
    names()
