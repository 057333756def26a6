"""How a run is known to trackers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = "microbudget"
"""Where a tracker's own environment variable names no other project."""

FLATTENED = ("status", "reason", "updates", "spent_s", "budget_s", "cost", "best_update", "hardware")
"""Entries of summary.json that are single values."""


@dataclass(frozen=True)
class Identity:
    """One run.

    id: unlike that of any other run, the same over all resumes.
    folder: the run folder. settings: as nested mappings, without what is its owner's business.
    """

    id: str
    name: str
    folder: Path
    settings: dict[str, Any]

    @property
    def title(self) -> str:
        """The name, with enough of the id to tell it from a run that was begun anew under it."""
        return f"{self.name}-{self.id[:6]}"


def endings(summary: dict[str, Any]) -> dict[str, Any]:
    """Return single values of summary.json by name, those that are there."""
    return {key: summary[key] for key in FLATTENED if summary.get(key) is not None}
