"""What is compared in a sweep: means over seeds, and every two values of the axis in question."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from math import lcm, sqrt
from statistics import fmean, variance
from typing import Any

from actors.evaluation.statistics import SIGNIFICANT, holm, student_p, student_quantile
from launch.reports.history import Cell, Row, Run, Sweep
from launch.reports.tables import PROBED, entropy_change
from launch.reports.verdict import Interval, level, level_of, paired
from launch.reports.wording import many

RANK = "lora.rank"
LEARNING_RATE = "learner.learning_rate"
MODEL = "model.path"

AXIS_NAMES = {RANK: "rank", LEARNING_RATE: "learning rate", MODEL: "model"}


@dataclass(frozen=True)
class Mean:
    """interval: 95 %, over seeds, or else over problems. seeds: how many values it is the mean of."""

    value: float
    interval: Interval | None
    seeds: int
    over_problems: bool = False

    @property
    def basis(self) -> str:
        return many(self.seeds, "seed") + (", over problems" if self.over_problems else "")


@dataclass(frozen=True)
class Group:
    """The cells that differ in the seed alone. settings: on the axes. probed: see `on_probe`."""

    settings: dict[str, Any]
    cells: tuple[Cell, ...]
    probed: bool

    @property
    def done(self) -> list[Run]:
        """The runs that have a final evaluation."""
        return [cell.run for cell in self.cells if cell.run and cell.run.final]

    @property
    def finals(self) -> list[Row]:
        return [run.final for run in self.done if run.final]

    @property
    def values(self) -> list[float]:
        """Held-out pass@1 of the trained policies: one value a seed, the mean where one was run several times."""
        return _by_seed((cell.seed, cell.run.final["pass@1"]) for cell in self.cells if cell.run and cell.run.final)

    @property
    def final(self) -> Mean | None:
        values = self.values
        if not values:
            return None
        if len(set(values)) > 1:
            low, high = over_seeds(values)
            return Mean(fmean(values), (max(low, 0.0), min(high, 1.0)), len(values))
        found = level_of(self.solved.values()) if self.solved else level(self.finals[0])
        return Mean(fmean(values), found.interval, len(values), over_problems=found.interval is not None)

    @property
    def entropy(self) -> Mean | None:
        """Relative change of the entropy per token."""
        found = [(cell.seed, entropy_of(cell, self.probed)) for cell in self.cells]
        values = _by_seed((seed, change) for seed, change in found if change is not None)
        return Mean(fmean(values), over_seeds(values) if len(values) > 1 else None, len(values)) if values else None

    @property
    def solved(self) -> dict[str, float]:
        """Share of correct samples of each held-out problem that all runs judged, the mean over runs."""
        of_runs = [run.solved[1] for run in self.done]
        return {
            problem: fmean(of[problem] for of in of_runs)
            for problem in of_runs[0]
            if all(problem in of for of in of_runs)
        }


def _by_seed(pairs: Iterable[tuple[int, float]]) -> list[float]:
    """The mean of each seed's values."""
    seeds: dict[int, list[float]] = {}
    for seed, value in pairs:
        seeds.setdefault(seed, []).append(value)
    return [fmean(values) for values in seeds.values()]


@dataclass(frozen=True)
class Contrast:
    """One value of an axis against another, all else equal or, with `best`, each at its best learning rate. interval:
    95 %. p: that there is no difference; corrected for `family`, the number of such contrasts, by `contrasts`. Both
    None where nothing tells the spread.
    """

    axis: str
    low: Group
    high: Group
    best: bool
    difference: float
    interval: Interval | None
    p: float | None
    basis: str
    over_problems: bool = False
    family: int = 1

    @property
    def shown(self) -> bool:
        """Whether interval and corrected test exclude that there is none."""
        excluded = self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]
        return excluded and self.p is not None and self.p <= SIGNIFICANT

    @property
    def of_one_seed(self) -> bool:
        """Whether nothing is known of other seeds."""
        return self.over_problems and len(self.low.values) == len(self.high.values) == 1

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that both have."""
        chosen = (LEARNING_RATE,) if self.best else ()
        return {key: value for key, value in self.low.settings.items() if key not in (self.axis, *chosen)}


def axis_name(key: str) -> str:
    return AXIS_NAMES.get(key, key.rpartition(".")[2].replace("_", " "))


def question(sweep: Sweep) -> str | None:
    """The axis that a sweep asks about: the rank, if it is one."""
    return RANK if RANK in sweep.axes else next(iter(sweep.axes), None)


def groups(sweep: Sweep) -> list[Group]:
    found: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in sweep.cells:
        found.setdefault(tuple(cell.settings[axis] for axis in sweep.axes), []).append(cell)
    order = sorted(found, key=lambda values: [sweep.axes[a].index(v) for a, v in zip(sweep.axes, values, strict=True)])
    probed = on_probe(sweep)
    return [Group(dict(zip(sweep.axes, values, strict=True)), tuple(found[values]), probed) for values in order]


def on_probe(sweep: Sweep) -> bool:
    """Whether all runs with a final evaluation know their entropy on fixed responses, and so are compared by that."""
    done = [cell.run for cell in sweep.cells if cell.run and cell.run.final]
    return bool(done) and all(run.plasticity.get("probe_entropy") for run in done)


def entropy_of(cell: Cell, probed: bool) -> float | None:
    """Relative change of a run's entropy, on fixed responses or over its updates."""
    found = entropy_change(cell.run, probed) if cell.run else None
    return found[0] if found and (found[1] == PROBED) == probed else None


def contrasts(sweep: Sweep) -> list[Contrast]:
    """Every two values of the axis in question, everywhere both have results; then the same at the best learning rate
    of each.
    """
    axis = question(sweep)
    if axis is None:
        return []
    done = [group for group in groups(sweep) if group.final]
    equal = [pair for slice_ in _slices(done, axis).values() for pair in _pairs(axis, slice_, best=False)]
    rated = _slices(done, axis, LEARNING_RATE) if axis != LEARNING_RATE and LEARNING_RATE in sweep.axes else {}
    best = [pair for slice_ in rated.values() for pair in _pairs(axis, best_of(slice_, sweep.axes, axis), best=True)]
    return [*_corrected(equal), *_corrected(best)]


def _corrected(found: list[Contrast]) -> list[Contrast]:
    """With p-values that hold for all of them together."""
    judged = [contrast for contrast in found if contrast.p is not None]
    p_values = iter(holm([contrast.p for contrast in judged if contrast.p is not None]))
    return [
        contrast if contrast.p is None else replace(contrast, p=next(p_values), family=len(judged))
        for contrast in found
    ]


def best_of(slice_: Iterable[Group], axes: dict[str, tuple[Any, ...]], axis: str) -> list[Group]:
    """Of each value of an axis, in its order, the group with the best mean."""
    best: dict[Any, Group] = {}
    for group in slice_:
        known = best.get(group.settings[axis])
        if known is None or fmean(group.values) > fmean(known.values):
            best[group.settings[axis]] = group
    return [best[value] for value in axes[axis] if value in best]


def _slices(done: list[Group], *free: str) -> dict[tuple[Any, ...], list[Group]]:
    """Groups that differ in nothing but the free axes."""
    slices: dict[tuple[Any, ...], list[Group]] = {}
    for group in done:
        fixed = tuple(value for axis, value in group.settings.items() if axis not in free)
        slices.setdefault(fixed, []).append(group)
    return slices


def _pairs(axis: str, slice_: list[Group], best: bool) -> list[Contrast]:
    """Every two groups of a slice, whose seeds all tell the spread."""
    freedom = sum(len(group.values) - 1 for group in slice_)
    squares = sum(variance(group.values) * (len(group.values) - 1) for group in slice_ if len(group.values) > 1)
    spread = sqrt(squares / freedom) if freedom else 0.0
    return [
        _over_seeds(axis, low, high, best, spread, freedom) if spread else _over_problems(axis, low, high, best)
        for low, high in combinations(slice_, 2)
    ]


def _over_seeds(axis: str, low: Group, high: Group, best: bool, spread: float, freedom: int) -> Contrast:
    difference = fmean(high.values) - fmean(low.values)
    error = spread * sqrt(1 / len(low.values) + 1 / len(high.values))
    margin = student_quantile(0.95, freedom) * error
    interval = difference - margin, difference + margin
    return Contrast(
        axis, low, high, best, difference, interval, student_p(difference / error, freedom), _seeds(low, high)
    )


def _over_problems(axis: str, low: Group, high: Group, best: bool) -> Contrast:
    """Where seeds tell no spread: there is one of each, or they all ended alike."""
    unit = lcm(*(final["n"] * len(group.finals) for group in (low, high) for final in group.finals))
    found = paired(low.solved, high.solved, unit)
    difference, interval, p = fmean(high.values) - fmean(low.values), None, None
    if found:
        difference, interval, p = found.difference, found.interval, found.p
    basis = f"{_seeds(low, high)}, over problems"
    return Contrast(axis, low, high, best, difference, interval, p, basis, over_problems=True)


def _seeds(low: Group, high: Group) -> str:
    seeds = [many(len(group.values), "seed") for group in (high, low)]
    return f"{seeds[0]} each" if seeds[0] == seeds[1] else f"{seeds[0]} against {len(low.values)}"


def over_seeds(values: list[float]) -> Interval:
    """Student's 95 % interval of the mean of at least two values."""
    margin = student_quantile(0.95, len(values) - 1) * sqrt(variance(values) / len(values))
    return fmean(values) - margin, fmean(values) + margin
