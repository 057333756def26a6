"""`python launch/bench.py NAME`: ours and the alternative in turn, on this machine; table and runs/bench/NAME.json."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from rich.console import Console
from rich.table import Table

from conf.errors import BadInput
from conf.nearest import nearest
from launch import benches
from launch.benches.report import Report
from launch.plan.machine import detect

FOLDER = Path("runs/bench")
NOT_BENCHES = ("report", "peers")


def names() -> list[str]:
    return [module.name for module in iter_modules(benches.__path__) if module.name not in NOT_BENCHES]


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 for bad input."""
    try:
        if len(arguments) != 1:
            raise BadInput(f"name one bench: {', '.join(names())}")
        if arguments[0] not in names():
            close = nearest(arguments[0], names()) or names()
            raise BadInput(f"no bench {arguments[0]!r}: there is {', '.join(close)}")
        run: Callable[[], Report] = import_module(f"launch.benches.{arguments[0]}").run
        report = run()
    except BadInput as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 2
    show(arguments[0], report)
    print(f"Written to {write(arguments[0], report)}")
    return 0


def write(name: str, report: Report, folder: Path = FOLDER) -> Path:
    """The report as JSON, with the machine it was made on; where it is."""
    machine = detect()
    document = {
        "machine": {"name": machine.name, "cores": len(machine.cores), "gpus": machine.gpus},
        "limit": report.limit,
        "rows": [asdict(row) | {"ratio": row.ratio} for row in report.rows],
        "notes": report.notes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def show(name: str, report: Report) -> None:
    console = Console()
    machine = detect()
    table = Table(title=f"{name} on {machine.name}, {os.cpu_count()} cores", title_justify="left")
    for heading in ("case", "metric"):
        table.add_column(heading)
    for heading in ("ours", "baseline", "ratio"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        table.add_row(row.case, row.metric, f"{row.value:,.4g}", f"{row.baseline:,.4g}", f"{row.ratio:.2f}")
    console.print(table)
    for limit, value in report.limit.items():
        console.print(f"limit: {limit} {value:,.4g}", highlight=False)
    for note in report.notes:
        console.print(note, highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
