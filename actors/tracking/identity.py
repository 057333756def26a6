"""How a run is known to trackers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
