"""Measurements in processes of their own, so that none finds the memory or the caches of another."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from actors.storage.run_record import RunRecord

RUN = Path(__file__).parents[1] / "run.py"


def measured(module: str, *arguments: str, python: Path | str = sys.executable, quiet: bool = False) -> Any:
    """Run `python -m MODULE ARGUMENTS…` and return the JSON in the last line of its output."""
    command = [python, "-m", module, *arguments]
    errors = subprocess.DEVNULL if quiet else None
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=errors, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_rows(folder: str | Path, *settings: str) -> list[dict[str, float]]:
    """Carry out a run of the quickstart in a folder and return the rows of its metrics.jsonl."""
    fixed = ("conf=quickstart", "run.name=run", f"run.folder={folder}", "eval.problems=0", "dashboard.port=0")
    subprocess.run([sys.executable, str(RUN), *fixed, *settings], check=True, stdout=sys.stderr)
    return RunRecord(Path(folder) / "run").rows()
