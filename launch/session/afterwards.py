"""What a person may do next with a run that has ended."""

from pathlib import Path
from typing import Any

from conf.command import near


def next_steps(summary: dict[str, Any], folder: Path) -> list[str]:
    """Return lines on what to do now: go on with the run, or use what it has trained."""
    if summary["status"] not in ("completed", "budget_exhausted"):
        return ["The same command resumes the run."]
    if not summary["updates"]:
        return []
    run = near(folder)
    steps = {
        "talk to it": f"python launch/chat.py {run}",
        "see answers": f"python launch/samples.py {run}",
        "measure more": f"python launch/evaluate.py adapter={run}/checkpoints/latest",
        "take it away": f"python launch/export.py {run}",
    }
    width = max(map(len, steps))
    return ["Next:", *(f"  {what:<{width}}  {command}" for what, command in steps.items())]
