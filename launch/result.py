"""Print the result of a finished run in a few lines. The exit code is 1 if there is none.

    python -m launch.result RUN_FOLDER

Example:

    python -m launch.result runs/quickstart
"""

import sys

from actors.formats import duration
from actors.storage.documents import RunSummary
from actors.storage.run_record import RunRecord
from conf.arguments import run_and_options
from conf.command import command
from conf.errors import printable
from launch.reporting import conclusion


def describe(summary: RunSummary) -> str:
    """Say how and when a run ended."""
    cost = "" if summary.cost is None else f", at a cost of {summary.cost:.2f}"
    spent = duration(summary.spent_s)
    ended = "completed, with its time budget used," if summary.status == "budget_exhausted" else summary.status
    updates = f"{summary.updates} update{'' if summary.updates == 1 else 's'}"
    return f"{ended} after {updates} in {spent}{cost}: {summary.reason}"


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
