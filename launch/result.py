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
    """What a run came to: how long it took, and held-out pass@1 before and after where it was measured."""
    lines = [f"{summary['status']} after {summary['updates']} updates in {summary['spent_s'] / 60:.1f} minutes"]
    base, final = (summary["eval"].get(when) for when in ("base", "final"))
    if base and final:
        change = final["pass@1"] - base["pass@1"]
        lines.append(
            f"held-out pass@1: {base['pass@1']:.1%} before, {final['pass@1']:.1%} after "
            f"({100 * change:+.1f} points, {final['n']} problems)"
        )
    return lines


def main() -> int:
    folder = Path(sys.argv[1])
    summary = finished(folder)
    if summary is None:
        return 1
    print(f"{folder}: " + "\n  ".join(describe(summary)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
