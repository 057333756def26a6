"""Measurements in processes of their own, so that none finds the memory or the caches of another."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from actors.storage.run_record import RunRecord

ROOT = Path(__file__).parents[2]


def measured(module: str, *arguments: str, python: Path | str = sys.executable, quiet: bool = False) -> Any:
    """Run `python -m MODULE ARGUMENTS…` and return the JSON in the last line of its output."""
    command = [python, "-m", module, *arguments]
    errors = subprocess.DEVNULL if quiet else None
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=errors, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def carry_out(folder: str | Path, settings: dict[str, Any]) -> list[dict[str, float]]:
    """Carry out a run of the quickstart in a folder and return the rows of its metrics.jsonl."""
    fixed = {"conf": "quickstart", "run.name": "run", "run.folder": folder, "dashboard.port": 0}
    given = [f"{key}={value}" for key, value in (fixed | settings).items()]
    found = os.environ | {"PYTHONPATH": str(ROOT)}  # problems and rewards of this folder
    command = [sys.executable, str(ROOT / "launch/run.py"), *given]
    subprocess.run(command, check=True, stdout=sys.stderr, env=found)
    return [row.metrics for row in RunRecord(Path(folder) / "run").rows()]
