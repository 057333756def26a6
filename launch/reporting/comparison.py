"""Compares the runs of a sweep: means over seeds, and every two values of the axis that the sweep asks about."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from statistics import fmean
from typing import Any

from actors.evaluation.statistics import (
    Difference,
    Estimate,
    holm,
    over_problems,
    over_seeds,
    paired_difference,
    pooled_difference,
    pooled_variance,
)
from launch.reporting.history import LEARNING_RATE, RANK, Run, Settings, Sweep
from launch.reporting.verdict import recorded
from launch.reporting.wording import WORDS, many


@dataclass(frozen=True)
class Group:
    """The runs that differ in the seed alone. settings: on the axes. runs: those with a final evaluation."""

    settings: Settings
    cells: tuple[Run, ...]

    @property
    def runs(self) -> list[Run]:
        return [run for run in self.cells if run.final]

    @property
    def values(self) -> list[float]:
        """Held-out pass@1 of the trained policies, one value a seed."""
        return _by_seed((run, run.final.pass_at_1 if run.final else None) for run in self.cells)

    @property
    def final(self) -> Estimate | None:
        """Mean held-out pass@1 of the trained policies. Its interval is over problems where seeds do not differ."""
        values = self.values
        if not values:
            return None
        mean = over_seeds(values)
        if mean.interval and len(set(values)) > 1:
            return Estimate(mean.value, (max(mean.interval[0], 0.0), min(mean.interval[1], 1.0)))
        if self.solved:
            return Estimate(mean.value, over_problems(self.solved.values()).interval)
        known = self.runs[0].final
        return Estimate(mean.value, recorded(known).interval if known else None)

    @property
    def basis(self) -> str:
        """What the mean is of, in words."""
        if not self.values:
            return f"0 of {len(self.cells)}"
        by_problem = len(set(self.values)) == 1 and self.final and self.final.interval
        return many(len(self.values), "seed") + (", over problems" if by_problem else "")

    def entropy(self, probed: bool) -> Estimate | None:
        """Return the mean relative change of the entropy per token."""
        values = _by_seed((run, run.entropy_change(probed)) for run in self.cells)
        return over_seeds(values) if values else None

    @property
    def solved(self) -> dict[str, float]:
        """Share of correct samples of each held-out problem that all runs evaluated, the mean over runs."""
        of_runs = [run.solved[1] for run in self.runs]
        common = [problem for problem in of_runs[0] if all(problem in of_run for of_run in of_runs)]
        return {problem: fmean(of_run[problem] for of_run in of_runs) for problem in common}


def _by_seed(values: Iterable[tuple[Run, float | None]]) -> list[float]:
    """Return the mean of each seed's values."""
    seeds: dict[int, list[float]] = {}
    for run, value in values:
        if value is not None:
            seeds.setdefault(run.seed, []).append(value)
    return [fmean(of_seed) for of_seed in seeds.values()]


@dataclass(frozen=True)
class Contrast:
    """One value of an axis against another.

    best: whether each is taken at its best learning rate, instead of all else being equal.
    difference: of `high` less `low`; its p-value holds for all `family` contrasts together.
    by_problem: whether interval and p-value are over problems, for want of seeds that differ.
    """

    axis: str
    low: Group
    high: Group
    best: bool
    difference: Difference
    by_problem: bool
    family: int = 1

    @property
    def of_one_seed(self) -> bool:
        """Whether nothing is known of other seeds."""
        return self.by_problem and len(self.low.values) == len(self.high.values) == 1

    @property
    def basis(self) -> str:
        """What it rests on, in words."""
        seeds = [many(len(group.values), "seed") for group in (self.high, self.low)]
        each = f"{seeds[0]} each" if seeds[0] == seeds[1] else f"{seeds[0]} against {len(self.low.values)}"
        return each + (", over problems" if self.by_problem else "")


def axis_name(key: str) -> str:
    return str(WORDS["axes"].get(key) or key.rpartition(".")[2].replace("_", " "))


def question(sweep: Sweep) -> str | None:
    """Return the axis that a sweep asks about: the rank, if it is one."""
    return RANK if RANK in sweep.axes else next(iter(sweep.axes), None)


def groups(sweep: Sweep) -> list[Group]:
    """Return the runs by their settings, in the order of the axes."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in sweep.runs:
        found.setdefault(tuple(run.settings.get(axis) for axis in sweep.axes), []).append(run)
    order = sorted(found, key=lambda values: [sweep.axes[a].index(v) for a, v in zip(sweep.axes, values, strict=True)])
    return [Group(dict(zip(sweep.axes, values, strict=True)), tuple(found[values])) for values in order]


def finished(sweep: Sweep) -> list[Group]:
    """Return the groups that have a final evaluation."""
    return [group for group in groups(sweep) if group.runs]


def on_probe(sweep: Sweep) -> bool:
    """Whether all finished runs know how their entropy on the probe has changed, and so are compared by that."""
    return bool(sweep.finished) and all(run.plasticity.probe_entropy for run in sweep.finished)


def contrasts(sweep: Sweep) -> list[Contrast]:
    """Compare every two values of the axis in question, wherever both have results, then each at its best learning
    rate.
    """
    axis = question(sweep)
    if axis is None:
        return []
    equal = _compared(axis, _alike(sweep, axis), best=False)
    if axis == LEARNING_RATE or LEARNING_RATE not in sweep.axes:
        return _corrected(equal)
    best = _compared(axis, best_rates(sweep, axis), best=True)
    return [*_corrected(equal), *_corrected(best)]


def best_rates(sweep: Sweep, axis: str) -> list[list[Group]]:
    """Return of each value of an axis, in its order, the group with the learning rate of the best mean: a list for
    every combination of the other axes.
    """
    found = []
    for alike in _alike(sweep, axis, LEARNING_RATE):
        by_value = {value: [group for group in alike if group.settings[axis] == value] for value in sweep.axes[axis]}
        found.append([max(each, key=lambda group: fmean(group.values)) for each in by_value.values() if each])
    return found


def _alike(sweep: Sweep, *free: str) -> list[list[Group]]:
    """Return lists of finished groups that differ in nothing but the free axes."""
    found: dict[tuple[Any, ...], list[Group]] = {}
    for group in finished(sweep):
        fixed = tuple(value for axis, value in group.settings.items() if axis not in free)
        found.setdefault(fixed, []).append(group)
    return list(found.values())


def _compared(axis: str, lists: list[list[Group]], best: bool) -> list[Contrast]:
    """Compare every two groups of each list, with intervals that hold for all comparisons together."""
    family = sum(comb(len(alike), 2) for alike in lists)
    return [pair for alike in lists for pair in _pairs(axis, alike, best, family)]


def _pairs(axis: str, alike: list[Group], best: bool, family: int) -> list[Contrast]:
    """Compare every two of these groups: over seeds with the spread of all, or over problems if seeds have none."""
    variance, freedom = pooled_variance(group.values for group in alike)
    found = []
    for low, high in combinations(alike, 2):
        if variance:
            difference = pooled_difference(low.values, high.values, variance, freedom, family)
        else:
            mere = Difference(fmean(high.values) - fmean(low.values))
            difference = paired_difference(low.solved, high.solved, family) or mere
        found.append(Contrast(axis, low, high, best, difference, by_problem=not variance))
    return found


def _corrected(found: list[Contrast]) -> list[Contrast]:
    """Return the contrasts with p-values that hold for all of them together."""
    known = [p for contrast in found if (p := contrast.difference.p) is not None]
    p_values = iter(holm(known))
    return [
        replace(contrast, difference=replace(contrast.difference, p=next(p_values)), family=len(known))
        if contrast.difference.p is not None
        else contrast
        for contrast in found
    ]
