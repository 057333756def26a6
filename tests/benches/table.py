"""What a bench found: the table on the screen and runs/bench/NAME.json."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from conf.command import PlainConsole
from launch.hardware.machine import detect

FOLDER = Path("runs/bench")


@dataclass(frozen=True)
class Row:
    """One comparison: `value` is ours, `baseline` the other side's, measured in turn in the same call."""

    case: str
    metric: str
    value: float
    baseline: float

    @property
    def ratio(self) -> float:
        return self.value / self.baseline


@dataclass(frozen=True)
class Result:
    """What a bench found.

    limit: what the machine could do at best, by name with its unit
    notes: sentences for people
    """

    rows: tuple[Row, ...]
    limit: dict[str, float]
    notes: tuple[str, ...] = ()

    def write(self, name: str, folder: Path = FOLDER) -> Path:
        """Write the result as JSON, with the machine it was made on; return the file."""
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
        for limit, value in self.limit.items():
            console.print(f"limit: {limit} {value:,.4g}", highlight=False)
        for note in self.notes:
            console.print(note, highlight=False)
