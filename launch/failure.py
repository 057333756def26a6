"""summary.json of a run whose coordinator could not write it."""

import json
from pathlib import Path
from typing import Any

from actors.durable import replace_text


def write_failure(folder: Path, budget_s: float, reason: str) -> dict[str, Any]:
    """Write what the run folder still tells, under the usual keys; the summary. The time spent is that last written."""
    latest = folder / "checkpoints" / "latest"
    summary = {
        "status": "failed",
        "reason": reason,
        "updates": int(latest.resolve().name.rpartition("-")[2]) if latest.exists() else 0,
        "budget_s": budget_s,
        "spent_s": spent(folder),
        "eval": {"base": read(folder / "eval-base.json"), "final": None},
        "plasticity": None,
        "best_update": None,
        "ledger": read(folder / "ledger.json") or {"seconds": {}, "counts": {}},
        "events": events(folder),
        "versions": {},
    }
    replace_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def spent(folder: Path) -> float:
    """Seconds that all processes of a run have used so far."""
    return float((read(folder / "spent.json") or {"spent_s": 0.0})["spent_s"])


def events(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of events.jsonl."""
    file = folder / "events.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None
