"""summary.json of a run whose coordinator could not write it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.storage.files import replace_text

if TYPE_CHECKING:
    from launch.session.coordinator_actor import RunRequest


def write_ending(request: "RunRequest", status: str, reason: str) -> dict[str, Any]:
    """Write what the run folder still tells, under the usual keys; the summary. One that the coordinator has come to
    write stands.
    """
    folder = Path(request.folder)
    written: dict[str, Any] | None = read(folder / "summary.json")
    if written is not None:
        return written
    latest = folder / "checkpoints" / "latest"
    summary: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "updates": int(latest.resolve().name.rpartition("-")[2]) if latest.exists() else 0,
        "budget_s": request.config.budget.seconds,
        "spent_s": request.spent,
        "eval": {"base": read(folder / "eval-base.json"), "final": None},
        "plasticity": None,
        "best_update": None,
        "ledger": read(folder / "ledger.json") or {"seconds": {}, "counts": {}},
        "events": events(folder),
        "versions": {},
    }
    write_spent(folder, summary["spent_s"])
    replace_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def spent(folder: Path) -> float:
    """Seconds that all processes of a run have used so far."""
    return float((read(folder / "spent.json") or {"spent_s": 0.0})["spent_s"])


def write_spent(folder: Path, seconds: float) -> None:
    """Keep them, while there is no coordinator to."""
    replace_text(folder / "spent.json", json.dumps({"spent_s": seconds}))


def events(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of events.jsonl."""
    file = folder / "events.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None
