"""Whether a run goes back to an earlier version, and to which. Each return halves the rate and gives other samples."""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

EARLY_UPDATES = 5
"""Number of first updates whose mean entropy is the early one."""

LEAST_ENTROPY = 0.5
"""Fraction of the early entropy from which a version still explores."""

LEAST_AGE = 4
"""Least number of updates between a version that a run goes back to and the sign that it has to."""

LEAST_UPDATES = 10
"""Fewest updates that must still fit after a return."""

WORSE = 0.15
"""Rise of the fraction of problems without a right sample that shows a broken policy: about twice the standard error of
forty problems."""

SLOWER = 0.5
"""Factor of the learning rate after each return."""

FIRST_COPIES = (4, 8, 16)
"""Versions that get a checkpoint whatever `checkpoint.every` says: a short run becomes certain before the first."""


class WayBack(NamedTuple):
    """A return to a version. cause: what led to it; empty after a crash, which is no fault of the policy."""

    version: int
    cause: str = ""


def newest_exploring(entropy: Mapping[int, float], versions: Collection[int]) -> int:
    """Return the newest of some versions that explores; 0, the start, without one. entropy: of samples, by version."""
    early = [entropy[version] for version in sorted(entropy)[:EARLY_UPDATES]]
    exploring = (v for v in versions if v in entropy and entropy[v] >= LEAST_ENTROPY * fmean(early))
    return max(exploring, default=0)


def unsolved(row: Mapping[str, float]) -> float:
    """Return the fraction of an update's problems without a right sample."""
    return row["errors/unanimous"] * (1 - row.get("reward/accuracy", 0.0))


def is_broken(fractions: Sequence[float]) -> bool:
    """Return whether the policy solves fewer problems than at the start. Entropy does not tell: it may rise meanwhile.

    fractions: `unsolved` of each update.
    """
    early, late = fractions[:EARLY_UPDATES], fractions[EARLY_UPDATES:][-EARLY_UPDATES:]
    return len(late) == EARLY_UPDATES and fmean(late) > fmean(early) + WORSE


def updates_needed(version: int, updates: int) -> int:
    """Return how many updates must still fit for a return to a version to pay: as many as it takes back, at least."""
    return max(LEAST_UPDATES, updates - version)
