"""Print the result of a finished run in a few lines: exit code 1 if there is none.

    python -m launch.result RUN_FOLDER

Example:

    python -m launch.result runs/quickstart
"""

import sys
from typing import Any

from actors.formats import duration
from actors.storage.run_record import RunRecord
from conf.arguments import run_and_options
from conf.command import command
from conf.text import printable
from launch.reporting import conclusion


def describe(summary: dict[str, Any]) -> str:
    """Say how and when a run ended."""
    spent = duration(summary.get("spent_s", 0.0))
    if summary.get("cost") is not None:
        spent += f", at a cost of {summary['cost']:.2f}"
    return f"{summary['status']} after {summary.get('updates', 0)} updates in {spent}: {summary.get('reason')}"


@command("result", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, 1 if there is no finished run, 2 for bad input."""
    run = RunRecord(run_and_options(arguments, {})[0])
    if (summary := run.finished()) is None:
        return 1
    report = [f"report: {run.report}"] if run.report.exists() else []
    print(f"{run.path}: " + "\n  ".join(map(printable, [describe(summary), *report, conclusion(run.path)])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
