"""Successive halving (arXiv 1502.07943) of the learning rate: which rates to try next, for how long. Pure functions.

All rates get a short trial, the better ones a longer one, and so on; each rung of trials takes the same time in all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KEEP = 3
"""One rate in so many comes to the next rung: the η of Hyperband (arXiv 1603.06560)."""

Scores = Mapping[float, float | None]
"""Of the rates of one rung, higher is better; None for a trial that came to nothing."""


@dataclass(frozen=True)
class Trial:
    """A short run of a setting.

    rung: from 1
    place: among the rates of its rung, from 0
    share: of a main run's budget
    """

    rung: int
    place: int
    share: float


def trials(rates: int, runs: int, share: float) -> list[Trial]:
    """Return the trials of one setting, rung after rung.

    rates: how many there are. runs: main runs of the setting. share: of the time of trials and main runs together that
    the trials take.
    """
    sizes = []
    while rates > 1:
        sizes.append(rates)
        rates = math.ceil(rates / KEEP)
    time = runs * share / (1 - share)
    return [Trial(rung, place, time / len(sizes) / size) for rung, size in enumerate(sizes, 1) for place in range(size)]


def survivors(rates: Sequence[float], rungs: Sequence[Scores]) -> list[float] | None:
    """Return the rates of the rung after these, the best first, and after the last rung the best alone; None while the
    last of these lacks a score.

    Of equal scores the lower rate's counts as better. A trial that came to nothing is out: there may be fewer rates
    than the next rung has places, or none.
    """
    left = list(rates)
    for scores in rungs:
        if not all(rate in scores for rate in left):
            return None
        ranked = sorted((-score, rate) for rate in left if (score := scores[rate]) is not None)
        left = [rate for _, rate in ranked][: math.ceil(len(left) / KEEP)]
    return left
