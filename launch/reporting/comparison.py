"""Compares the runs of a sweep: means over seeds, and every two values of the axis in question.

All tests over seeds and over problems, and their corrections for several at once, are here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import sqrt
from statistics import fmean, variance
from typing import Any

from microbudget_rl.actors.evaluation.statistics import (
    CONFIDENCE,
    Difference,
    H,
    Mean,
    means,
    over_problems,
    paired_difference,
    student_p,
    student_quantile,
    together,
)
from microbudget_rl.actors.results import Results, Settings
from microbudget_rl.launch.reporting.history import LEARNING_RATE, RANK, Sweep
from microbudget_rl.launch.reporting.run_conclusion import mean_of
from microbudget_rl.launch.reporting.wording import WORDS, many

EQUAL = 1e-9
"""Difference between the results of seeds up to which only rounding separates them."""

SPREAD = 0.07
"""Standard deviation of pass@1 over seeds where only one seed is known: Student's, pooled over eleven sets of three
to ten seeds in docs/background/results.md and in the studies of staleness, group size and learning rate (1.9 to 10.5
points). Sampling 85 to 128 problems explains up to 3 of them. It leaves out the set with a collapsed run (20.8), and
other models and tasks."""

MOST_SEEDS = 20
"""Most seeds that a report advises."""


@dataclass(frozen=True)
class Repeats:
    """Runs that only differ in the seed. settings: their values on the axes."""

    settings: Settings
    runs: tuple[Results, ...]

    @property
    def finished(self) -> list[Results]:
        return [run for run in self.runs if run.eval.final]

    @property
    def values(self) -> list[float]:
        """Held-out pass@1 of the trained policies, one value per seed: the mean of its runs."""
        return [*means((run.seed, run.eval.final.pass_at_1) for run in self.runs if run.eval.final).values()]

    @property
    def final(self) -> Mean | None:
        """Mean held-out pass@1 of the trained policies. Its interval is over problems if the seeds do not differ."""
        values = self.values
        if not values:
            return None
        mean = fraction(values, [*self.solved.values()])
        known = [mean_of(run.eval.final) for run in self.finished if run.eval.final]
        return mean if mean.interval or self.solved else Mean(mean.value, known[0].interval)

    @property
    def basis(self) -> str:
        """The number of seeds in the mean, in words."""
        if not self.values:
            return f"0 of {len(self.runs)}"
        by_problem = len(set(self.values)) == 1 and self.final and self.final.interval
        return many(len(self.values), "seed") + (", over problems" if by_problem else "")

    @cached_property
    def solved(self) -> dict[str, float]:
        """Held-out problem that all runs evaluated → mean over runs of the fraction of correct samples."""
        return mean_by_problem(run.solved("final") for run in self.finished)


@dataclass(frozen=True)
class Contrast:
    """One value of an axis against another.

    best: whether each value has its best learning rate, instead of all other settings being equal.
    difference: `high` minus `low`, see `_compared`. by_problem: see `difference`. family: number of comparisons.
    """

    axis: str
    low: Repeats
    high: Repeats
    best: bool
    difference: Difference
    by_problem: bool
    family: int

    @property
    def of_one_seed(self) -> bool:
        """Whether a value has one seed, so that nothing is known about others."""
        return min(len(self.low.values), len(self.high.values)) == 1

    @property
    def basis(self) -> str:
        seeds = [many(len(repeats.values), "seed") for repeats in (self.high, self.low)]
        each = f"{seeds[0]} each" if seeds[0] == seeds[1] else f"{seeds[0]} against {len(self.low.values)}"
        return each + (", over problems" if self.by_problem else "")


def axis_name(key: str) -> str:
    return str(WORDS["axes"].get(key) or key.rpartition(".")[2].replace("_", " "))


def question(sweep: Sweep) -> str | None:
    """Return the axis in question: the rank, or else the first axis."""
    return RANK if RANK in sweep.axes else next(iter(sweep.axes), None)


def by_settings(sweep: Sweep) -> list[Repeats]:
    """Return the runs by their settings, in the order of the axes."""
    by_setting: dict[tuple[Any, ...], list[Results]] = {}
    for run in sweep.runs:
        by_setting.setdefault(tuple(run.settings.get(axis) for axis in sweep.axes), []).append(run)
    order = sorted(
        by_setting, key=lambda values: [sweep.axes[a].index(v) for a, v in zip(sweep.axes, values, strict=True)]
    )
    return [Repeats(dict(zip(sweep.axes, values, strict=True)), tuple(by_setting[values])) for values in order]


def finished(sweep: Sweep) -> list[Repeats]:
    return [repeats for repeats in by_settings(sweep) if repeats.finished]


def contrasts(sweep: Sweep) -> list[Contrast]:
    """Compare every two values of the axis in question, with all else equal, and each at its best learning rate."""
    if (axis := question(sweep)) is None:
        return []
    equal = _compared(axis, _alike(sweep, axis), best=False)
    if axis == LEARNING_RATE or LEARNING_RATE not in sweep.axes:
        return equal
    best = []
    for alike in _alike(sweep, axis, LEARNING_RATE):
        by_value = [[repeats for repeats in alike if repeats.settings[axis] == value] for value in sweep.axes[axis]]
        best.append([max(each, key=lambda repeats: fmean(repeats.values)) for each in by_value if each])
    return equal + _compared(axis, best, best=True)


def _alike(sweep: Sweep, *free: str) -> list[list[Repeats]]:
    """Return lists of finished runs that only differ in the free axes and the seed."""
    by_rest: dict[tuple[Any, ...], list[Repeats]] = {}
    for repeats in finished(sweep):
        fixed = tuple(value for axis, value in repeats.settings.items() if axis not in free)
        by_rest.setdefault(fixed, []).append(repeats)
    return list(by_rest.values())


def comparable(low: Repeats, high: Repeats) -> bool:
    """Whether two values share an evaluated problem, or may do so."""
    return not (low.solved and high.solved and low.solved.keys().isdisjoint(high.solved))


def _compared(axis: str, lists: list[list[Repeats]], best: bool) -> list[Contrast]:
    """Compare every two comparable members of each list; intervals (Bonferroni) and p-values (Holm) hold for all."""
    pairs = [pair for alike in lists for pair in combinations(alike, 2) if comparable(*pair)]
    family, contrasts = len(pairs), list[Contrast]()
    for low, high in pairs:
        known = difference(low.values, high.values, low.solved, high.solved, family)
        contrasts.append(Contrast(axis, low, high, best, *known, family))
    p_values = iter(holm([p for each in contrasts if (p := each.difference.p) is not None]))
    for number, each in enumerate(contrasts):
        if each.difference.p is not None:
            contrasts[number] = replace(each, difference=replace(each.difference, p=next(p_values)))
    return contrasts


def mean_by_problem(shares: Iterable[Mapping[H, float]]) -> dict[H, float]:
    """Return the means over several mappings of the problems that are in all of them."""
    known = list(shares)
    common = [problem for problem in known[0] if all(problem in each for each in known)]
    return {problem: fmean(each[problem] for each in known) for problem in common}


def over_seeds(values: Sequence[float]) -> Mean:
    """Return the mean of one value per seed, with Student's interval from two seeds on."""
    if len(values) < 2:
        return Mean(fmean(values))
    margin = student_quantile(CONFIDENCE, len(values) - 1) * sqrt(variance(values) / len(values))
    return Mean(fmean(values), (fmean(values) - margin, fmean(values) + margin))


def fraction(values: Sequence[float], by_problem: Sequence[float]) -> Mean:
    """Return the mean of a fraction per seed, with its interval over seeds, or over problems if seeds do not differ."""
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
    value, varied = fmean(high) - fmean(low), (high,) if noise else (low, high)
    freedom = min(map(len, varied)) - 1
    parts = [variance(values) / len(values) for values in varied] if freedom else []
    if sum(parts) <= EQUAL**2:
        return Difference(value)
    if len({*map(len, varied)}) == 1:
        freedom = int(freedom * sum(parts) ** 2 / sum(part**2 for part in parts) + EQUAL)
    error = sqrt(sum(parts) + noise)
    margin = student_quantile(together(family), freedom) * error
    return Difference(value, (value - margin, value + margin), student_p(value / error, freedom))


def difference(
    low: Sequence[float],
    high: Sequence[float],
    before: Mapping[str, float],
    after: Mapping[str, float],
    family: int,
    noise: float = 0.0,
) -> tuple[Difference, bool]:
    """Return mean(high) - mean(low) over seeds, or paired by problem if several seeds do not differ, and whether it is
    over problems.

    before, after: the same by problem. family, noise: as in `welch_difference`.
    """
    difference = welch_difference(low, high, family, noise)
    if difference.interval or len(high) == 1 or (len(low) == 1 and not noise):
        return difference, False
    return paired_difference(before, after, family) or difference, True


def seeds_to_decide(distance: float, family: int, sides: int = 2) -> str:
    """Say how many seeds would decide a difference so far from a bound. sides: of one mean with seeds, or of two."""
    enough = (
        many(n, "seed")
        for n in range(2, MOST_SEEDS + 1)
        if student_quantile(together(family), sides * (n - 1)) * SPREAD * sqrt(sides / n) < distance
    )
    needed = next(enough, f"more than {MOST_SEEDS} seeds")
    return f"where seeds vary by {100 * SPREAD:.0f} points, {needed}{' of each' if sides > 1 else ''} would decide it"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of a family of tests, corrected for their number (Holm 1979)."""
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = corrected[place] = max(least, min((len(p_values) - rank) * p_values[place], 1.0))
    return corrected
