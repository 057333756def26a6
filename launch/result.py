"""The result of a finished run in a few lines. `python -m launch.result RUN_FOLDER` exits with 1 if there is none."""

import json
import sys
from pathlib import Path
from typing import Any

FINISHED = ("completed", "budget_exhausted")


def finished(folder: Path) -> dict[str, Any] | None:
    """summary.json of a run that has reached its end, else None."""
    path = folder / "summary.json"
    if not path.is_file():
        return None
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary if summary["status"] in FINISHED else None


def describe(summary: dict[str, Any]) -> list[str]:
    """What a run came to: how and when it ended, and held-out pass@1 before and after where it was measured."""
    spent = f"{summary['spent_s'] / 60:.1f} minutes"
    if summary.get("cost") is not None:
        spent += f", at a cost of {summary['cost']:.2f}"
    lines = [f"{summary['status']} after {summary['updates']} updates in {spent}: {summary['reason']}"]
    base, final = summary["eval"]["base"], summary["eval"]["final"]
    if base and final:
        low, high = final["ci95"]
        lines.append(
            f"held-out pass@1: {base['pass@1']:.3f} before, {final['pass@1']:.3f} after (95 % interval {low:.3f}–"
            f"{high:.3f}; {final['problems']} problems, {final['n']} samples each)"
        )
    return lines


def main() -> int:
    folder = Path(sys.argv[1])
    summary = finished(folder)
    if summary is None:
        return 1
    report = folder / "report.html"
    print(f"{folder}: " + "\n  ".join([*describe(summary), *([f"report: {report}"] if report.exists() else [])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
