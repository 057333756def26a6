"""Estimates over held-out problems, with their uncertainty."""

from collections.abc import Sequence
from math import comb
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000


def pass_values(correct: Sequence[int], n: int, k: int) -> list[float]:
    """Probability that at least one of k samples is correct, for each problem.

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
    """`pass_values` averaged over problems."""
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
    values: Sequence[float], confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the mean of per-problem values: problems are resampled, not samples.

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
    tail = NormalDist().cdf(-((m / (m - 1)) ** 0.5) * _student((1 + confidence) / 2, m - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of per-problem values in [0, 1]: `bootstrap_interval`, but where all are 0 or all are 1,
    which says nothing to a bootstrap, that of Clopper and Pearson for none, or all, of so many problems.
    """
    low, high = bootstrap_interval(values, confidence)
    reach = 1 - ((1 - confidence) / 2) ** (1 / len(values))
    if high == 0.0:
        return 0.0, reach
    return (1 - reach, 1.0) if low == 1.0 else (low, high)


def sign_flip_p(differences: Sequence[int]) -> float:
    """Two-sided p-value of paired differences, one a problem: how probable a sum at least as far from 0 is if each of
    them were as likely to have the other sign. Exact: all 2^m choices of signs count, by their sums.
    """
    sizes = [abs(difference) for difference in differences if difference]
    reach = sum(sizes)
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for size in sizes:
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    extreme = np.abs(np.arange(-reach, reach + 1)) >= abs(sum(differences))
    return min(float(chance[extreme].sum()), 1.0)


def _student(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution: the expansion of Abramowitz and Stegun 26.7.5, good to 1 % from three
    degrees of freedom.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
