"""Trains with TRL in a process of its own, whose environment it installs."""

import json
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

from tests.benches.results import measured
from tests.conftest import ROOT

TRL = "trl==1.16.0"
FOLDER = ROOT / ".venv-bench"
"""Environment with TRL alone; torch, transformers and the rest come from the project's own."""


def install() -> Path:
    """Return the interpreter of an environment with TRL in it."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / "finished").exists():
        print(f"Installing {TRL} into {FOLDER} ...")
        venv.create(FOLDER, clear=True, with_pip=True)
        (site,) = FOLDER.glob("lib/python*/site-packages")
        (site / "project.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", TRL], check=True)
        (FOLDER / "finished").touch()
    return python


def train(**work: Any) -> dict[str, Any]:
    """Train with TRL in a process of its own. work: arguments of tests.benches.trl_trainer.train."""
    return measured("tests.benches.trl_trainer", json.dumps(work), python=install(), quiet=True)
