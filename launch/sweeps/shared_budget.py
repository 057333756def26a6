"""What each cell of a sweep may spend, and which one is given up early."""

from collections.abc import Iterable, Sequence
from statistics import fmean

WATCHED = (0.4, 0.5)
"""Shares of its budget between which a cell's accuracy decides whether it is given up."""


def allowance(total_s: float, spent: Sequence[float], rounds: int) -> float:
    """Return the seconds that the next of `rounds` cells may take, which share `total_s` one after another: an equal
    part of what the cells before it have left. spent: seconds of those.
    """
    return max(total_s - sum(spent), 0.0) / max(rounds - len(spent), 1)


def halfway_accuracy(rows: Iterable[dict[str, float]]) -> float | None:
    """Return the accuracy on training samples by which a cell is compared, None before half its budget. rows: its
    metrics.
    """
    shares = [(row["budget/spent_s"] / (row["budget/spent_s"] + row["budget/left_s"]), row) for row in rows]
    watched = [row["reward/accuracy"] for share, row in shares if WATCHED[0] < share <= WATCHED[1]]
    passed = any(share >= WATCHED[1] for share, _ in shares)
    return fmean(watched) if passed and watched else None
