"""Runs measurements in processes of their own; shows their results and writes runs/bench/NAME.json."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.command import PlainConsole
from microbudget_rl.launch.hardware.machine import detect
from tests.conftest import ROOT

FOLDER = Path("runs/bench")


@dataclass(frozen=True)
class Row:
    """One comparison. value: ours; baseline: the other side's, measured in turn in the same call."""

    case: str
    metric: str
    value: float
    baseline: float

    @property
    def ratio(self) -> float:
        return self.value / self.baseline


@dataclass(frozen=True)
class Result:
    """The result of a bench. limit: the machine's bounds, by name with unit. notes: sentences for people."""

    rows: tuple[Row, ...]
    limit: dict[str, float]
    notes: tuple[str, ...] = ()

    def write(self, name: str, folder: Path = FOLDER) -> Path:
        """Write the result as JSON, with its machine; return the file."""
        machine = detect()
        document = {
            "machine": {"name": machine.name, "cores": len(machine.cores), "gpus": machine.gpus},
            "limit": self.limit,
            "rows": [asdict(row) | {"ratio": row.ratio} for row in self.rows],
            "notes": self.notes,
        }
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.json"
        file.write_text(json.dumps(document, indent=1) + "\n")
        return file

    def show(self, name: str) -> None:
        console = PlainConsole()
        table = Table(title=f"{name} on {detect().name}, {os.cpu_count()} cores", title_justify="left")
        for heading in ("case", "metric", "ours", "baseline", "ratio"):
            table.add_column(heading, justify="left" if heading in ("case", "metric") else "right")
        for row in self.rows:
            table.add_row(row.case, row.metric, f"{row.value:,.4g}", f"{row.baseline:,.4g}", f"{row.ratio:.2f}")
        console.print(table)
        limits = (f"limit: {limit} {value:,.4g}" for limit, value in self.limit.items())
        console.print("\n".join([*limits, *self.notes]), highlight=False)


def measured(module: str, *arguments: str, python: Path | str = sys.executable, quiet: bool = False) -> Any:
    """Run `python -m MODULE ARGUMENTS…`, with memory and caches of its own; return the JSON in its last line."""
    command = [python, "-m", module, *arguments]
    errors = subprocess.DEVNULL if quiet else None
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=errors, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def carry_out(folder: str | Path, settings: dict[str, Any]) -> list[dict[str, float]]:
    """Run the quickstart in a folder and return the rows of its metrics.jsonl."""
    fixed = {"conf": "quickstart", "run.name": "run", "run.folder": folder, "dashboard.port": 0}
    given = [f"{key}={value}" for key, value in (fixed | settings).items()]
    found = os.environ | {"PYTHONPATH": str(ROOT)}  # for problems and rewards of this folder
    command = [sys.executable, str(ROOT / "launch/run.py"), *given]
    subprocess.run(command, check=True, stdout=sys.stderr, env=found)
    return [row.metrics for row in RunRecord(Path(folder) / "run").rows()]
