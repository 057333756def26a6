"""Means over seeds, and tests of several differences at once."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, variance

from actors.evaluation.statistics import (
    CONFIDENCE,
    Difference,
    Mean,
    over_problems,
    student_p,
    student_quantile,
    together,
)
from launch.reporting.wording import many

EQUAL = 1e-9
"""Difference between the results of seeds up to which only rounding separates them."""

SPREAD = 0.05
"""Standard deviation of pass@1 over seeds where only one seed is known; those in docs/background are 1 to 6 points."""

MOST_SEEDS = 20
"""Most seeds that a report advises."""


def over_seeds(values: Sequence[float]) -> Mean:
    """Return the mean of one value per seed, with Student's interval from two seeds on."""
    if len(values) < 2:
        return Mean(fmean(values))
    margin = student_quantile(CONFIDENCE, len(values) - 1) * sqrt(variance(values) / len(values))
    return Mean(fmean(values), (fmean(values) - margin, fmean(values) + margin))


def fraction(values: Sequence[float], by_problem: Sequence[float]) -> Mean:
    """Return the mean of a fraction, with the interval over seeds, or over problems if the seeds do not differ.

    values: one per seed. by_problem: means over the seeds, may be empty.
    """
    mean = over_seeds(values)
    if mean.interval and max(values) - min(values) > EQUAL:
        return Mean(mean.value, (max(mean.interval[0], 0.0), min(mean.interval[1], 1.0)))
    return Mean(mean.value, over_problems(by_problem).interval if by_problem else None)


def welch_difference(low: Sequence[float], high: Sequence[float], family: int = 1, noise: float = 0.0) -> Difference:
    """Return mean(high) - mean(low) of seeds that may vary unequally, with interval and p-value from two seeds of each
    on, unless all seeds of each are equal. family: as in `paired_difference`.

    noise: variance of the value of a base model, which has no seed, if `low` is one; 0 if not.

    Student's with the degrees of freedom of Welch 1947 (Biometrika 34, 28), rounded down. Between unequal numbers of
    seeds it has those of the fewer: with Welch's, 9 % of five seeds against two would differ by chance, not 5 %.
    """
    difference, varied = fmean(high) - fmean(low), (high,) if noise else (low, high)
    freedom = min(map(len, varied)) - 1
    parts = [variance(values) / len(values) for values in varied] if freedom else []
    if sum(parts) <= EQUAL**2:
        return Difference(difference)
    if len({*map(len, varied)}) == 1:
        freedom = int(freedom * sum(parts) ** 2 / sum(part**2 for part in parts) + EQUAL)
    error = sqrt(sum(parts) + noise)
    margin = student_quantile(together(family), freedom) * error
    return Difference(difference, (difference - margin, difference + margin), student_p(difference / error, freedom))


def seeds_to_decide(distance: float, family: int, sides: int = 2) -> str:
    """Say how many seeds would tell a difference from a bound that is so far away, if they vary by `SPREAD`.

    sides: number of means with seeds, 1 where a base model is compared.
    """
    enough = (
        many(n, "seed")
        for n in range(2, MOST_SEEDS + 1)
        if student_quantile(together(family), sides * (n - 1)) * SPREAD * sqrt(sides / n) < distance
    )
    needed = next(enough, f"more than {MOST_SEEDS} seeds")
    return f"where seeds vary by {100 * SPREAD:.0f} points, {needed}{' of each' if sides > 1 else ''} would decide it"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of a family of tests, corrected for their number (Holm 1979): the smallest times the number
    of tests, the next times one fewer, none below the one before.
    """
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = corrected[place] = max(least, min((len(p_values) - rank) * p_values[place], 1.0))
    return corrected
