"""The paper's own numbers, for a run of the same model."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import conf


@dataclass(frozen=True)
class PaperResults:
    """Of one model. benchmarks: by name, `base` and `trained`, each pass@1, @8, @16 in %. entropy: % by rank."""

    model: str
    benchmarks: dict[str, dict[str, list[float]]]
    entropy: dict[int, float]
    note: str = ""


@cache
def all_results() -> dict[str, PaperResults]:
    tables: dict[str, Any] = yaml.safe_load((Path(conf.__path__[0]) / "paper_results.yaml").read_text("utf-8"))
    return {model: PaperResults(model, **table) for model, table in tables.items()}


def results_for(model: str) -> PaperResults | None:
    """Return the results of a model, given by its hub id or by a folder whose name ends like one."""
    wanted = model.rstrip("/").rpartition("/")[2].lower()
    return next((found for name, found in all_results().items() if name.rpartition("/")[2].lower() == wanted), None)
