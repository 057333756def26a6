"""Means over seeds, and tests of several differences at once."""

from collections.abc import Iterable, Sequence
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

EQUAL = 1e-9
"""Difference between the results of seeds up to which only rounding separates them."""


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


def pooled_variance(samples: Iterable[Sequence[float]]) -> tuple[float, int]:
    """Return the pooled variance within samples and its degrees of freedom; a variance of 0 where none differ."""
    several = [values for values in samples if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(variance(values) * (len(values) - 1) for values in several)
    return (squares / freedom if freedom and squares > EQUAL**2 else 0.0), freedom


def pooled_difference(
    low: Sequence[float], high: Sequence[float], variance: float, freedom: int, family: int
) -> Difference:
    """Return mean(high) - mean(low) with Student's test. variance: above 0. family: as in `paired_difference`."""
    difference = fmean(high) - fmean(low)
    error = sqrt(variance * (1 / len(low) + 1 / len(high)))
    margin = student_quantile(together(family), freedom) * error
    return Difference(difference, (difference - margin, difference + margin), student_p(difference / error, freedom))


def unpooled_difference(low: Sequence[float], high: Sequence[float], family: int) -> Difference:
    """Return mean(high) - mean(low) of seeds that may vary unequally, with an interval from two seeds of each on:
    Student's with the fewer degrees of freedom, never more than Welch's. family: as in `paired_difference`.
    """
    difference, freedom = fmean(high) - fmean(low), min(len(low), len(high)) - 1
    error = sqrt(sum(variance(values) / len(values) for values in (low, high))) if freedom else 0.0
    if error <= EQUAL:
        return Difference(difference)
    margin = student_quantile(together(family), freedom) * error
    return Difference(difference, (difference - margin, difference + margin))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of a family of tests, corrected for their number (Holm 1979): the smallest times the number
    of tests, the next times one fewer, none below the one before.
    """
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = corrected[place] = max(least, min((len(p_values) - rank) * p_values[place], 1.0))
    return corrected
