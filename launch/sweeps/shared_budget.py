"""What each cell of a sweep may spend, which one is given up early, and how well a trial did."""

from collections.abc import Iterable, Sequence
from statistics import fmean

WATCHED = (0.4, 0.5)
"""Shares of its budget between which a cell's accuracy decides whether it is given up."""


JUDGED = 5
"""A trial is judged by one in so many of its updates, the last ones."""


def allowance(left_s: float, weight: float, weights_left: float) -> float:
    """Return the seconds that the next cell may take of those left to several, which take turns: a part by its weight.

    weights_left: of all that share them, the next one included.
    """
    return max(left_s, 0.0) * weight / max(weights_left, weight)


def final_accuracy(rows: Sequence[dict[str, float]]) -> float | None:
    """Return the accuracy on training samples by which a trial is judged; None if it has made no update."""
    last = rows[-max(len(rows) // JUDGED, 1) :]
    return fmean(row["reward/accuracy"] for row in last) if last else None


def halfway_accuracy(rows: Iterable[dict[str, float]]) -> float | None:
    """Return the accuracy on training samples by which a cell is compared, None before half its budget. rows: its
    metrics.
    """
    shares = [(row["budget/spent_s"] / (row["budget/spent_s"] + row["budget/left_s"]), row) for row in rows]
    watched = [row["reward/accuracy"] for share, row in shares if WATCHED[0] < share <= WATCHED[1]]
    passed = any(share >= WATCHED[1] for share, _ in shares)
    return fmean(watched) if passed and watched else None
