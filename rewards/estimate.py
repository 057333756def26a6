"""Estimates over held-out problems, with their uncertainty."""

from collections.abc import Sequence
from math import comb

import numpy as np


def pass_at_k(correct: Sequence[int], n: int, k: int) -> float:
    """Probability that at least one of k samples is correct, averaged over problems.

    correct: correct samples of each problem, out of n. The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et
    al. 2021 (arXiv 2107.03374); at k = 1 it is the mean of c / n. Raises ValueError unless 1 <= k <= n, 0 <= c <= n
    and there is a problem.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= n, with n = {n} samples")
    if not correct or not all(0 <= c <= n for c in correct):
        raise ValueError(f"pass@{k} needs a problem, and 0 to {n} correct samples of each")
    return sum(1 - comb(n - c, k) / comb(n, k) for c in correct) / len(correct)


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of per-problem values: problems are resampled, not samples.

    Raises ValueError without values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    data = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(data), size=(resamples, len(data)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(data[draws].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)
