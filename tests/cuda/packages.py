"""The packages themselves: launch/locks/cuda.txt, the files of the wheels, and the private names that we use."""

import csv
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from sysconfig import get_path

from tests.conftest import ROOT
from tests.cuda.absent import attempt, pretend
from tests.test_private_apis import ROWS, check

LOCK = ROOT / "launch/locks/cuda.txt"

UNUSED = "build_backend.py"
"""A file that two packages leave beside all others, and nothing imports."""


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
    shared = {file: by for file, by in writers.items() if len(by) > 1 and file != UNUSED}
    if different := [f"{file} by {' and '.join(by)}" for file, by in shared.items() if len({*by.values()}) > 1]:
        raise ValueError(f"{len(different)} files differ, such as {different[0]}")


def ask() -> None:
    for python in ("3.11", "3.12", "3.13"):
        for extras in (["cuda"], ["cuda", "dev"]):
            attempt("lock resolves", f"Python {python}, {' and '.join(extras)}", partial(resolve, python, *extras))
    attempt("one wheel per file", "all", written_once)
    pretend("A40")
    for row in ROWS:
        attempt("private names", row["name"], partial(check, row))
