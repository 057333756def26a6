"""Print the result of a finished run in a few lines: exit code 1 if there is none.

    python -m launch.result RUN_FOLDER

Example:

    python -m launch.result runs/quickstart
"""

import sys
from pathlib import Path
from typing import Any

from actors.formats import duration
from actors.storage.run_record import RunRecord
from conf.command import command
from conf.errors import BadInput


def describe(summary: dict[str, Any]) -> list[str]:
    """Say how and when a run ended, and held-out pass@1 before and after where it was measured."""
    summary = {"updates": 0, "spent_s": 0.0, "reason": None, "eval": {}} | summary
    spent = duration(summary["spent_s"])
    if summary.get("cost") is not None:
        spent += f", at a cost of {summary['cost']:.2f}"
    lines = [f"{summary['status']} after {summary['updates']} updates in {spent}: {summary['reason']}"]
    base, final = summary["eval"].get("base"), summary["eval"].get("final")
    if base and final:
        low, high = final["ci95"]
        samples = "sample" if final["n"] == 1 else "samples"
        lines.append(
            f"held-out pass@1: {base['pass@1']:.3f} before, {final['pass@1']:.3f} after (95 % interval {low:.3f}–"
            f"{high:.3f}; {final['problems']} problems, {final['n']} {samples} each)"
        )
    return lines


@command("result", __doc__)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0, 1 if there is no finished run, 2 for bad input."""
    if len(arguments) != 1:
        raise BadInput("name the folder of a run: python -m launch.result runs/quickstart")
    run = RunRecord(Path(arguments[0]))
    summary = run.finished()
    if summary is None:
        return 1
    report = [f"report: {run.report}"] if run.report.exists() else []
    print(f"{run.path}: " + "\n  ".join([*describe(summary), *report]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
