"""The paper's figures and claims, from paper.yaml."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from launch.reporting.wording import MISSING, decimal

PAPER: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text("utf-8"))

MARKS = "ᵃᵇᶜᵈᵉ"
"""Marks of the traps in tables."""


def short_name(path: str) -> str:
    """Return a model's name without its owner, folder or scheme."""
    return path.rpartition(":")[2].rstrip("/").rpartition("/")[2]


@cache
def model(path: str) -> dict[str, Any]:
    """Return what the paper says of a model, by its short name; empty for a model that is not in it."""
    return next((of for known, of in PAPER["models"].items() if short_name(known) == short_name(path)), {})


def printed(path: str, row: str, benchmark: str, k: int) -> float | None:
    """Return pass@k in percent as printed, None if the paper has none. row: base or trained."""
    known = model(path).get(row, {}).get(benchmark)
    return None if known is None or k not in PAPER["ks"] else float(known[PAPER["ks"].index(k)])


def figure(path: str, row: str, benchmark: str, k: int) -> str:
    """Return `printed` for a table, with the marks of its traps."""
    own = [(mark, trap) for mark, trap in zip(MARKS, PAPER["traps"], strict=False) if _concerns(trap, path, row)]
    marks = [mark for mark, trap in own if k in trap.get("ks", PAPER["ks"])]
    value = printed(path, row, benchmark, k)
    return MISSING if value is None else decimal(value) + "".join(marks)


def change(path: str, start: tuple[str, int], end: tuple[str, int], benchmark: str) -> str:
    """Return the difference of two printed figures, each given by its row and k, in points."""
    first, second = (printed(path, row, benchmark, k) for row, k in (start, end))
    return MISSING if first is None or second is None else decimal(second - first, sign="+")


def traps(paths: list[str]) -> list[str]:
    """Return the notes on the rows of these models, each with its mark."""
    return [
        f"{mark} {trap['note']}"
        for mark, trap in zip(MARKS, PAPER["traps"], strict=False)
        if any(_concerns(trap, path, trap["row"]) for path in paths)
    ]


def _concerns(trap: dict[str, Any], path: str, row: str) -> bool:
    return row == trap["row"] and short_name(path) in trap["models"]
