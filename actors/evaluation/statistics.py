"""Scores of policies, and means over problems with their uncertainty."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import atan, comb, cos, isclose, pi, sin, sqrt
from statistics import fmean
from typing import TypeVar

from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.storage.documents import EvaluatedSample, PairedDifference, PolicyScores, SampleRow

CONFIDENCE = 0.95
"""Confidence of every interval in tables, reports and summaries."""

PASS_KS = (1, 8, 16)
"""Values of k in the paper's tables of pass@k; results add their own n."""

UNSEEN = 0.25
"""Imagined problems per evaluation with results as far apart as possible, since the real ones may be alike by chance.
With them intervals cover in simulation."""

CHANGED = 0.5
"""Imagined changed problems, added to the real ones: a few unchanged problems do not show that none would change."""

FEWEST = 6
"""Fewest problems for an interval or a conclusion: chance alone moves all of five one way in 2 / 2⁵ = 6 % of cases."""

SIGNIFICANT = 0.05
"""Largest p-value of a difference that counts as shown."""

Interval = tuple[float, float]

K = TypeVar("K", str, int)
"""Type of a problem's key."""

H = TypeVar("H", bound=Hashable)

Samples = Sequence[Sequence[EvaluatedSample]]
"""Samples of one policy by problem, equally many of each."""

Alike = Callable[[str, str], bool]
"""Tells whether two answers are the same. An unreadable answer does not even equal itself."""

UNVERIFIED = (Status.TIMEOUT, Status.CRASH)


@dataclass(frozen=True)
class Mean:
    """A mean. interval: the 95 % interval; None where the spread is not known well enough."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Difference(Mean):
    """A difference of two means. p: two-sided p-value of no difference; None where the spread is unknown."""

    p: float | None = None

    @property
    def shown(self) -> bool:
        """Whether interval and test both exclude zero."""
        excluded = self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]
        return excluded and self.p is not None and self.p <= SIGNIFICANT


def over_problems(shares: Iterable[float]) -> Mean:
    """Return the mean solved fraction of problems, without an interval for fewer than `FEWEST` of them."""
    values = list(shares)
    return Mean(fmean(values), share_interval(values) if len(values) >= FEWEST else None)


def paired_difference(before: Mapping[K, float], after: Mapping[K, float], family: int = 1) -> Difference | None:
    """Return the mean change in solved fraction over the problems in both; None if there are none.

    before, after: fractions by problem. family: number of comparisons for which the intervals are to hold together.

    Interval and p-value are the two sides of one score test: without a family the interval excludes 0 exactly where p
    is below 0.05. The variance under a mean change δ is that of `share_interval` with the changed fraction of the
    problems in the place of p: scale · (max(changed, |δ|) - δ²), as for paired proportions in Tango 1998 (Statistics in
    Medicine 17, 891). docs/how-to/evaluate.md has how often the intervals cover in simulation.
    """
    changes = [after[problem] - before[problem] for problem in sorted(before.keys() & after.keys())]
    if not changes:
        return None
    mean, count = fmean(changes), len(changes)
    scale = _scale(changes, 2 * UNSEEN)
    changed = (sum(map(abs, changes)) + CHANGED) / (count + CHANGED)
    p = student_p(mean / sqrt(scale * changed / count), 2 * count)
    if count < FEWEST:
        return Difference(mean, None, p)
    factor = student_quantile(together(family), 2 * count) ** 2 * scale / count
    lines = (0.0, changed), (1.0, 0.0), (-1.0, 0.0)
    bounds = [ends for line in lines if (ends := _bounds(mean, factor, *line))]
    least, most = min(low for low, _ in bounds), max(high for _, high in bounds)
    return Difference(mean, (max(least, -1.0), min(most, 1.0)), p)  # rounding may leave the range


def reward_difference(before: Mapping[K, float], after: Mapping[K, float]) -> Difference | None:
    """Return the mean change in reward over the problems in both, with interval and p-value; None if there are none.

    It is `paired_difference` in units of the range of all these rewards. Where that is no more than rounding, nothing
    has changed. It does not hold for rare large rewards, since the samples may lack them.
    """
    known = [*before.values(), *after.values()] or [0.0]
    low, high = min(known), max(known)
    unit = 0.0 if isclose(low, high) else high - low

    def shares(scores: Mapping[K, float]) -> dict[K, float]:
        return {problem: (value - low) / unit if unit else 0.0 for problem, value in scores.items()}

    if (difference := paired_difference(shares(before), shares(after))) is None:
        return None
    ends = difference.interval and (difference.interval[0] * unit, difference.interval[1] * unit)
    return Difference(difference.value * unit, ends, difference.p)


def known_rewards(rows: Iterable[SampleRow]) -> dict[str, float]:
    """Return the mean reward of each problem, of its samples whose reward is whole."""
    return means(
        (row.problem, row.reward)
        for row in rows
        if row.reward is not None and not (row.partial or row.failure or row.status in UNVERIFIED)
    )


def means(values: Iterable[tuple[H, float]]) -> dict[H, float]:
    """Return the mean of the values with each key, such as a problem."""
    by_row: dict[H, list[float]] = {}
    for key, value in values:
        by_row.setdefault(key, []).append(value)
    return {key: fmean(of_key) for key, of_key in by_row.items()}


def together(family: int) -> float:
    """Return the confidence of each of a family of intervals that hold together with CONFIDENCE (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(family, 1)


def pass_at(correct: Sequence[int], n: int, ks: Sequence[int] = PASS_KS) -> dict[int, list[float]]:
    """Return pass@k of each problem, the probability that at least one of k samples is correct, for all ks and k = n.

    correct: correct samples of each problem, out of n. The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et
    al. 2021 (arXiv 2107.03374); at k = 1 it is c / n.
    """
    known = sorted({k for k in (*ks, n) if k <= n})
    return {k: [1 - comb(n - c, k) / comb(n, k) for c in correct] for k in known}


def scores(samples: Samples, alike: Alike | None = None) -> PolicyScores:
    """Return pass@k for the paper's k and n, with 95 % intervals over problems, and means over samples.

    alike: adds maj@n. A response that could not be verified counts as wrong.
    """
    n = len(samples[0])
    values = {f"pass@{k}": shares for k, shares in pass_at(correct(samples), n).items()}
    if alike:
        values["maj@n"] = [majority(rows, alike) for rows in samples]
    intervals = {name: share_interval(each) for name, each in values.items()}
    rows = [row for of_problem in samples for row in of_problem]
    return PolicyScores.model_validate(
        {name: fmean(each) for name, each in values.items()}
        | {
            "n": n,
            "problems": len(samples),
            "ci95": intervals.pop("pass@1"),
            "intervals": intervals,
            "mean_length": fmean(row.tokens for row in rows),
            "truncated": fmean(row.finish_reason == "length" for row in rows),
            "format": fmean(row.format for row in rows),
            "unverified": fmean(row.status in UNVERIFIED for row in rows),
        }
    )


def comparison(base: Samples, adapter: Samples) -> PairedDifference:
    """Return the adapter's pass@1 minus the base model's, with the 95 % interval over problems and the p-value."""
    before, after = ({i: right / len(base[0]) for i, right in enumerate(correct(rows))} for rows in (base, adapter))
    difference = paired_difference(before, after)
    assert difference is not None  # there are problems
    assert difference.p is not None
    return PairedDifference(
        difference=difference.value, ci95=difference.interval and list(difference.interval), p=difference.p
    )


def correct(samples: Sequence[Sequence[SampleRow]]) -> list[int]:
    """Return the number of correct samples of each problem."""
    return [sum(row.status == Status.CORRECT for row in rows) for rows in samples]


def majority(rows: Sequence[EvaluatedSample], alike: Alike) -> float:
    """Return 1 if the commonest answer to a problem is correct, else 0; in a tie, the fraction that is correct.

    All correct answers count as one answer, and unreadable ones do not vote.
    """
    solved = sum(row.status == Status.CORRECT for row in rows)
    others: dict[str, int] = {}
    for row in rows:
        answer = row.extracted or ""
        if row.status != Status.CORRECT and alike(answer, answer):
            same = next((other for other in others if alike(other, answer)), answer)
            others[same] = others.get(same, 0) + 1
    counts = [solved, *others.values()]
    return 1 / counts.count(solved) if solved and solved == max(counts) else 0.0


def share_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the mean of per-problem values in [0, 1]. Raises ValueError without values.

    Wilson's score interval with continuity correction (Newcombe 1998, Statistics in Medicine 17, 857, method 4) and an
    effective number of problems, as for clustered samples in Dean and Pagano 2015 (JSSAM 3, 484): the variance of a
    problem's value under a mean p is scale · p (1 - p). The scale, from 0 where all values are alike to 1 where each is
    0 or 1, is estimated with `UNSEEN` problems of scale 1 added to the real ones. Student's t of 2 m degrees of freedom
    for m problems makes up for few of them. Where problems are all or nothing, 6 to 256 of them cover every mean in at
    least 95 % of the cases; docs/how-to/evaluate.md has those between.
    """
    mean, part = fmean(values), _scale(values, UNSEEN) / len(values)
    factor = student_quantile(confidence, 2 * len(values)) ** 2 * part
    ends = [_bounds(min(max(mean + half, 0.0), 1.0), factor, 1.0, 0.0) for half in (-part / 2, part / 2)]
    assert ends[0] is not None  # a mean within [0, 1] is within its own bounds
    assert ends[1] is not None
    return ends[0][0], ends[1][1]


def _scale(values: Sequence[float], unseen: float) -> float:
    """Return the ratio of squared deviations to those of values of 0, 1 or -1, with `unseen` such values added."""
    mean = fmean(values)
    most = sum(map(abs, values)) - len(values) * mean**2
    return (sum((value - mean) ** 2 for value in values) + unseen) / (max(most, 0.0) + unseen)


def _bounds(mean: float, factor: float, slope: float, constant: float) -> Interval | None:
    """Return the least and the greatest x with (x - mean)² ≤ factor · (slope · x + constant - x²); None without any."""
    half = mean + factor * slope / 2
    root = half**2 - (1 + factor) * (mean**2 - factor * constant)
    if root < 0:
        return None
    return (half - sqrt(root)) / (1 + factor), (half + sqrt(root)) / (1 + factor)


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
    """Return t such that this fraction of Student's distribution lies between -t and t, to a relative error of 1e-9."""
    low, high = 0.0, 1.0
    while student_p(high, freedom) > 1 - confidence:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > 1 - confidence else (low, middle)
    return high
