"""Compares the runs of a sweep: means over seeds, and every two values of the axis in question."""

from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from actors.evaluation.statistics import Difference, Mean, paired_difference
from launch.reporting import seeds
from launch.reporting.history import LEARNING_RATE, RANK, Run, Settings, Sweep
from launch.reporting.run_conclusion import mean_of
from launch.reporting.wording import WORDS, many


@dataclass(frozen=True)
class Repeats:
    """Runs that only differ in the seed. settings: their values on the axes."""

    settings: Settings
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.eval.final]

    @property
    def values(self) -> list[float]:
        """Held-out pass@1 of the trained policies, one value per seed: the mean of its runs."""
        by_seed: dict[int, list[float]] = {}
        for run in self.runs:
            if run.eval.final:
                by_seed.setdefault(run.seed, []).append(run.eval.final.pass_at_1)
        return [fmean(of_seed) for of_seed in by_seed.values()]

    @property
    def final(self) -> Mean | None:
        """Mean held-out pass@1 of the trained policies. Its interval is over problems if the seeds do not differ."""
        values = self.values
        if not values:
            return None
        mean = seeds.fraction(values, [*self.solved.values()])
        known = [mean_of(run.eval.final) for run in self.finished if run.eval.final]
        return mean if mean.interval or self.solved else Mean(mean.value, known[0].interval)

    @property
    def basis(self) -> str:
        """The number of seeds in the mean, in words."""
        if not self.values:
            return f"0 of {len(self.runs)}"
        by_problem = len(set(self.values)) == 1 and self.final and self.final.interval
        return many(len(self.values), "seed") + (", over problems" if by_problem else "")

    @property
    def solved(self) -> dict[str, float]:
        """Held-out problem that all runs evaluated → mean over runs of the fraction of correct samples."""
        of_runs = [run.solved("final") for run in self.finished]
        common = [problem for problem in of_runs[0] if all(problem in of_run for of_run in of_runs)]
        return {problem: fmean(of_run[problem] for of_run in of_runs) for problem in common}


@dataclass(frozen=True)
class Contrast:
    """One value of an axis against another.

    best: whether each value has its best learning rate, instead of all other settings being equal.
    difference: `high` minus `low`; interval and p-value hold for all `family` contrasts together.
    by_problem: whether interval and p-value are over problems, because several seeds do not differ.
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
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in sweep.runs:
        found.setdefault(tuple(run.settings.get(axis) for axis in sweep.axes), []).append(run)
    order = sorted(found, key=lambda values: [sweep.axes[a].index(v) for a, v in zip(sweep.axes, values, strict=True)])
    return [Repeats(dict(zip(sweep.axes, values, strict=True)), tuple(found[values])) for values in order]


def finished(sweep: Sweep) -> list[Repeats]:
    return [repeats for repeats in by_settings(sweep) if repeats.finished]


def contrasts(sweep: Sweep) -> list[Contrast]:
    """Compare every two values of the axis in question that have results, first with all else equal, then each at its
    best learning rate.
    """
    axis = question(sweep)
    if axis is None:
        return []
    equal = _compared(axis, _alike(sweep, axis), best=False)
    best = axis != LEARNING_RATE and LEARNING_RATE in sweep.axes
    return [*equal, *(_compared(axis, best_rates(sweep, axis), best=True) if best else ())]


def best_rates(sweep: Sweep, axis: str) -> list[list[Repeats]]:
    """Return, for each combination of the other axes, a list with the runs of each value of an axis at its best
    learning rate, in the axis's order.
    """
    found = []
    for alike in _alike(sweep, axis, LEARNING_RATE):
        by_value = [[repeats for repeats in alike if repeats.settings[axis] == value] for value in sweep.axes[axis]]
        found.append([max(each, key=lambda repeats: fmean(repeats.values)) for each in by_value if each])
    return found


def _alike(sweep: Sweep, *free: str) -> list[list[Repeats]]:
    """Return lists of finished runs that only differ in the free axes and the seed."""
    found: dict[tuple[Any, ...], list[Repeats]] = {}
    for repeats in finished(sweep):
        fixed = tuple(value for axis, value in repeats.settings.items() if axis not in free)
        found.setdefault(fixed, []).append(repeats)
    return list(found.values())


def comparable(low: Repeats, high: Repeats) -> bool:
    """Whether two values share an evaluated problem, or may do so."""
    return not (low.solved and high.solved and low.solved.keys().isdisjoint(high.solved))


def _compared(axis: str, lists: list[list[Repeats]], best: bool) -> list[Contrast]:
    """Compare every two members of each list that are comparable: over seeds, or over problems if several seeds do not
    differ. With one seed there is only the difference.

    Intervals (Bonferroni) and p-values (Holm) hold for all comparisons together.
    """
    pairs = [pair for alike in lists for pair in combinations(alike, 2) if comparable(*pair)]
    family, found = len(pairs), list[Contrast]()
    for low, high in pairs:
        difference = seeds.welch_difference(low.values, high.values, family)
        equal = not difference.interval and min(len(low.values), len(high.values)) > 1
        paired = paired_difference(low.solved, high.solved, family) if equal else None
        found.append(Contrast(axis, low, high, best, paired or difference, equal, family))
    p_values = iter(seeds.holm([p for each in found if (p := each.difference.p) is not None]))
    for number, each in enumerate(found):
        if each.difference.p is not None:
            found[number] = replace(each, difference=replace(each.difference, p=next(p_values)))
    return found
