"""Estimates over held-out problems and over seeds, with their uncertainty."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import atan, comb, cos, pi, sin, sqrt
from statistics import NormalDist, fmean, variance

import numpy as np

CONFIDENCE = 0.95
"""Of every interval in tables, reports and summaries."""

PASS_KS = (1, 8, 16)
"""The k of pass@k in the paper's tables; results add their own n."""

RESAMPLES = 10_000

FEWEST = 6
"""Problems that an interval or a verdict needs: were all of five better, chance alone would do as much in 2 / 2⁵ = 6 %
of the cases, and a bootstrap of so few sees no more than their few values."""

SIGNIFICANT = 0.05
"""p-values up to it count as shown."""

QUANTILE_ERROR = 1e-9
"""Relative."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean. interval: 95 %, None where too little is known of the spread."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference of two means. p: two-sided, that there is none; None where nothing is known of the spread."""

    p: float | None = None

    @property
    def shown(self) -> bool:
        """Whether interval and test both exclude that there is none."""
        excluded = self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]
        return excluded and self.p is not None and self.p <= SIGNIFICANT


def over_problems(shares: Iterable[float]) -> Estimate:
    """Return the mean of problems' solved shares, without an interval for fewer than `FEWEST` problems."""
    values = list(shares)
    return Estimate(fmean(values), share_interval(values) if len(values) >= FEWEST else None)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of one value a seed with Student's interval, from two seeds on."""
    if len(values) < 2:
        return Estimate(fmean(values))
    margin = student_quantile(CONFIDENCE, len(values) - 1) * sqrt(variance(values) / len(values))
    return Estimate(fmean(values), (fmean(values) - margin, fmean(values) + margin))


def paired_difference(
    before: Mapping[str, float], after: Mapping[str, float], unit: int, family: int = 1
) -> Difference | None:
    """Return the mean change of the solved share of the problems that both know; None if there are none.

    before, after: shares by problem, in whole 1 / unit. family: comparisons that the interval is to hold for together.
    """
    changes = [after[problem] - before[problem] for problem in sorted(before.keys() & after.keys())]
    if not changes:
        return None
    interval = bootstrap_interval(changes, together(family)) if len(changes) >= FEWEST else None
    return Difference(fmean(changes), interval, sign_flip_p([round(change * unit) for change in changes]))


def pooled_variance(samples: Iterable[Sequence[float]]) -> tuple[float, int]:
    """Return the variance within samples, all taken together, and its degrees of freedom; 0 and 0 where each is one."""
    several = [values for values in samples if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(variance(values) * (len(values) - 1) for values in several)
    return (squares / freedom if freedom else 0.0), freedom


def together(family: int) -> float:
    """Return the confidence of each of so many intervals that hold together with CONFIDENCE (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(family, 1)


def pooled_difference(
    low: Sequence[float], high: Sequence[float], variance: float, freedom: int, family: int = 1
) -> Difference:
    """Return the mean of `high` less that of `low` by Student's test. variance: above 0. family: see
    `paired_difference`.
    """
    difference = fmean(high) - fmean(low)
    error = sqrt(variance * (1 / len(low) + 1 / len(high)))
    margin = student_quantile(together(family), freedom) * error
    return Difference(difference, (difference - margin, difference + margin), student_p(difference / error, freedom))


def pass_values(correct: Sequence[int], n: int, k: int) -> list[float]:
    """Return the probability that at least one of k samples is correct, for each problem.

    correct: correct samples of each problem, out of n. The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et
    al. 2021 (arXiv 2107.03374); at k = 1 it is c / n. Raises ValueError unless 1 <= k <= n, 0 <= c <= n and there is a
    problem.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= n, with n = {n} samples")
    if not correct or not all(0 <= c <= n for c in correct):
        raise ValueError(f"pass@{k} needs a problem, and 0 to {n} correct samples of each")
    return [1 - comb(n - c, k) / comb(n, k) for c in correct]


def pass_at_k(correct: Sequence[int], n: int, k: int) -> float:
    """Return `pass_values` averaged over problems."""
    return sum(pass_values(correct, n, k)) / len(correct)


def majority(answers: Sequence[tuple[int | None, bool]]) -> float:
    """Whether the commonest answer of a problem is correct: 1 or 0, of several equally common ones the correct share.

    answers: of each sample the number of its answer, None for no answer, which is no vote, and whether it is correct.
    """
    votes: dict[int, int] = {}
    right = set()
    for answer, correct in answers:
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            right |= {answer} if correct else set()
    most = [answer for answer, count in votes.items() if count == max(votes.values())]
    return sum(answer in right for answer in most) / len(most) if most else 0.0


def bootstrap_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the bootstrap interval of the mean of per-problem values: problems are resampled, not samples.

    Percentiles, expanded for few problems as by Hesterberg 2015 (arXiv 1411.5279): a resample's spread is too small by
    √((m - 1) / m), and its percentiles are those of a normal where Student's t is due. Raises ValueError without
    values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    m = len(values)
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    if len(distinct) == 1:
        return float(distinct[0]), float(distinct[0])
    means = np.random.default_rng(seed).multinomial(m, counts / m, size=resamples) @ distinct / m
    tail = NormalDist().cdf(-((m / (m - 1)) ** 0.5) * student_quantile(confidence, m - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(values: Sequence[float]) -> Interval:
    """Return the interval of the mean of per-problem values in [0, 1]: `bootstrap_interval`, but where all are 0 or all
    are 1, which says nothing to a bootstrap, that of Clopper and Pearson for none, or all, of so many problems.
    """
    low, high = bootstrap_interval(values)
    reach = 1 - ((1 - CONFIDENCE) / 2) ** (1 / len(values))
    if high == 0.0:
        return 0.0, reach
    return (1 - reach, 1.0) if low == 1.0 else (low, high)


def sign_flip_p(differences: Sequence[int]) -> float:
    """Return the two-sided p-value of paired differences, one a problem: how probable a sum at least as far from 0 is
    if each of them were as likely to have the other sign. Exact: all 2^m choices of signs count, by their sums.
    """
    sizes = [abs(difference) for difference in differences if difference]
    reach = sum(sizes)
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for size in sizes:
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    extreme = np.abs(np.arange(-reach, reach + 1)) >= abs(sum(differences))
    return min(float(chance[extreme].sum()), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of a family of tests, corrected for their number as by Holm 1979: in their order, the
    smallest times the number of tests, the next times one fewer, and none below the one before.
    """
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = corrected[place] = max(least, min((len(p_values) - rank) * p_values[place], 1.0))
    return corrected


def student_p(t: float, freedom: int) -> float:
    """Return the two-sided p-value of Student's t: the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = atan(abs(t) / sqrt(freedom))
    odd = freedom % 2
    inside, term = 0.0, cos(angle) if odd else 1.0
    for i in range(1 + odd, freedom, 2):
        inside += term
        term *= cos(angle) ** 2 * i / (i + 1)
    inside *= sin(angle)
    return max(1 - (2 / pi * (angle + inside) if odd else inside), 0.0)


@cache
def student_quantile(confidence: float, freedom: int) -> float:
    """Return the t that so large a share of Student's distribution is within, on either side of 0; by bisection."""
    low, high = 0.0, 1.0
    while student_p(high, freedom) > 1 - confidence:
        high *= 2
    while high - low > QUANTILE_ERROR * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > 1 - confidence else (low, middle)
    return high
