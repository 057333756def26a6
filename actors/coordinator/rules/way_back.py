"""Whether a run goes back to an earlier version, and to which. Each return halves the rate and gives other samples."""

from collections.abc import Collection, Mapping
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

MOST_ENTROPY = 1.0
"""Entropy in nats per token that no policy which learned to answer has, unless it began there."""

MOST_GROWTH = 2.0
"""Factor over the early entropy above which a policy is broken, if it is above MOST_ENTROPY too."""

SLOWER = 0.5
"""Factor of the learning rate after each return."""

FIRST_COPIES = (4, 8, 16)
"""Versions that get a checkpoint whatever `checkpoint.every` says: a short run becomes certain before the first."""


class WayBack(NamedTuple):
    """A return to a version. cause: what led to it; empty after a crash, which is no fault of the policy."""

    version: int
    cause: str = ""


def early_entropy(entropy: Mapping[int, float]) -> float:
    """Return the mean of the first updates; 0 without any."""
    return fmean([entropy[version] for version in sorted(entropy)[:EARLY_UPDATES]] or [0.0])


def newest_exploring(entropy: Mapping[int, float], versions: Collection[int]) -> int:
    """Return the newest of some versions that explores; 0, the start, without one. entropy: of samples, by version."""
    least = LEAST_ENTROPY * early_entropy(entropy)
    return max((version for version in versions if entropy.get(version, -1.0) >= least), default=0)


def is_broken(entropy: Mapping[int, float]) -> bool:
    """Return whether the policy samples at random: its newest entropy is high, and far above the early one.

    It tells what the rewards of a policy that was hardly ever right cannot. entropy: of samples, by version.
    """
    newest = [entropy[version] for version in sorted(entropy)[EARLY_UPDATES:][-EARLY_UPDATES:]]
    return len(newest) == EARLY_UPDATES and fmean(newest) > max(MOST_ENTROPY, MOST_GROWTH * early_entropy(entropy))


def updates_needed(version: int, updates: int) -> int:
    """Return how many updates must still fit for a return to a version to pay: as many as it takes back, at least."""
    return max(LEAST_UPDATES, updates - version)
