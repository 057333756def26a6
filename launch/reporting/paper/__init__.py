"""The paper's figures, from paper.yaml, next to what a sweep scored on its benchmarks."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from microbudget_rl.launch.reporting.wording import MISSING

PAPER: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text("utf-8"))


def short_name(path: str) -> str:
    """Return a model's name without its owner, folder or scheme."""
    return path.rpartition(":")[2].rstrip("/").rpartition("/")[2]


@cache
def model(path: str) -> dict[str, Any]:
    """Return what the paper says of a model, by its path or short name; empty for a model that is not in it."""
    return next(
        (published for known, published in PAPER["models"].items() if short_name(known) == short_name(path)), {}
    )


def figure(name: str, row: str, benchmark: str, k: int) -> str:
    """Return pass@k in percent as printed, with the marks of its traps. row: base or trained."""
    printed = model(name).get(row, {}).get(benchmark)
    return str(printed[PAPER["ks"].index(k)]) if printed and k in PAPER["ks"] else MISSING


def traps(names: list[str]) -> list[str]:
    """Return the notes on the paper's figures of these models, each with its mark."""
    shown = str([model(name) for name in names])
    return [f"{mark} {note}" for mark, note in PAPER["traps"].items() if mark in shown]
