"""What a sweep answers: does the rank matter, and how sure is that?"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from math import lcm, sqrt
from statistics import fmean, variance
from typing import Any

from launch.reports.health import cut
from launch.reports.history import Cell, Row, Run, Sweep
from launch.reports.tables import PROBED, entropy_change
from launch.reports.verdict import Interval, level, level_of, paired
from launch.reports.wording import figure, many, p_value, plain, span, time
from rewards.estimate import SIGNIFICANT, holm, student_p, student_quantile

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


def answer(sweep: Sweep) -> str:
    """The question of a sweep, answered in a sentence or two. What is compared at the best learning rate is left out:
    that is picked by the same evaluation.
    """
    axis = question(sweep)
    found = [contrast for contrast in contrasts(sweep) if not contrast.best]
    results = sum(len(group.done) for group in groups(sweep))
    have = f"{results} of {many(len(sweep.cells), 'run')} {'has' if results == 1 else 'have'} a final evaluation"
    if axis is None:
        return f"Nothing differs between these runs but the seed; {have}."
    name = axis_name(axis)
    if not found:
        return f"No verdict: no two values of the {name} can be compared yet; {have}."
    places = {tuple(contrast.shared.items()): False for contrast in found}
    for contrast in found:
        places[tuple(contrast.shared.items())] |= contrast.shown
    lead = f"{name.capitalize()} matters here"
    if not any(places.values()):
        lead = f"No effect of the {name} can be shown here"
    elif not all(places.values()):
        lead = f"{name.capitalize()} matters here in part"
    quoted = clearest(found)
    if quoted.shown and quoted.of_one_seed:
        lead += ", as far as one seed each can tell"
    return " ".join([f"{lead}: {sentence(quoted)}.", *_lost(sweep, axis)])


def clearest(found: list[Contrast]) -> Contrast:
    """What is shown before what is not, over several seeds before one; then what is least likely to be chance, and of
    several such the largest.
    """

    def rank(each: Contrast) -> tuple[bool, bool, float, float]:
        return not each.shown, each.of_one_seed, 1.0 if each.p is None else each.p, -abs(each.difference)

    return min(found, key=rank)


def _lost(sweep: Sweep, axis: str) -> list[str]:
    """Which values of the axis are judged by those of their runs that got to the end."""
    parts = []
    for value in sweep.axes[axis]:
        cells = [cell for cell in sweep.cells if cell.settings[axis] == value]
        lost = [cell for cell in cells if not (cell.run and cell.run.final)]
        if lost:
            ends = ", ".join(dict.fromkeys(cell.status.replace("_", " ") for cell in lost))
            parts.append(f"{len(lost)} of {many(len(cells), 'run')} of {axis_name(axis)} {figure(value)} ({ends})")
    return [f"Without a final evaluation, and so left out: {', '.join(parts)}."] if parts else []


def sentences(sweep: Sweep) -> list[str]:
    """What else a reader looks for: the clearest comparison at the best learning rate of each."""
    best = [contrast for contrast in contrasts(sweep) if contrast.best]
    return [sentence(clearest(best))] if best else []


def place(contrast: Contrast) -> str:
    """Where two values are compared, in words."""
    shared = " and ".join(f"{axis_name(axis)} {figure(value)}" for axis, value in contrast.shared.items())
    parts = ["each at its best learning rate"] if contrast.best else []
    return ", ".join([*parts, f"at {shared}"] if shared else parts)


def named(contrast: Contrast, group: Group) -> str:
    """The value of one side of a comparison."""
    rate = f" ({figure(group.settings[LEARNING_RATE])})" if contrast.best else ""
    return f"{figure(group.settings[contrast.axis])}{rate}"


def certainty(contrast: Contrast) -> str:
    """The p-value in words."""
    if contrast.p is None:
        return ""
    return p_value(contrast.p) + (f", corrected for {contrast.family} comparisons" if contrast.family > 1 else "")


def sentence(contrast: Contrast) -> str:
    """One comparison in words, without a full stop."""
    where, name = place(contrast), axis_name(contrast.axis)
    low, high = named(contrast, contrast.low), named(contrast, contrast.high)
    size = plain(abs(contrast.difference) * 100)
    stands = f"{size} points {'above' if contrast.difference > 0 else 'below'}" if float(size) else "level with"
    interval = f"95 % interval {span(contrast.interval)}" if contrast.interval else ""
    return (
        f"{where}{', ' if where else ''}{name} {high} ends {stands} {name} {low}"
        f" ({'; '.join(filter(None, (interval, certainty(contrast), contrast.basis)))})"
    )


def caveats(sweep: Sweep) -> list[str]:
    """What a reader of the answer has to know."""
    missing = [cell for cell in sweep.cells if not (cell.run and cell.run.final)]
    found = contrasts(sweep)
    notes = []
    if missing:
        names = ", ".join(f"{cell.name} ({cell.status.replace('_', ' ')})" for cell in missing)
        notes.append(f"Without a final evaluation, and so in no mean: {names}.")
    notes += _unequal(sweep)
    if sweep.others:
        notes.append(f"Setups are numbered combinations of: {', '.join(sweep.others)}.")
    if any(contrast.best for contrast in found):
        notes.append(
            "The best of several learning rates is picked by the same evaluation: its mean is flattered, and so are"
            " comparisons of it."
        )
    if any(len(group.values) == 1 for group in groups(sweep)):
        notes.append("Where there is one seed, the interval is over problems and says nothing of other seeds.")
    if question(sweep) and any(len(group.values) > 1 for group in groups(sweep)):
        notes.append("Intervals over seeds are Student's; those of differences pool the spread of all values compared.")
    if any(contrast.family > 1 for contrast in found):
        notes.append("p-values are corrected for the number of comparisons as by Holm; intervals are not.")
    return notes


def _unequal(sweep: Sweep) -> list[str]:
    """Wherein the runs that are compared were not treated alike."""
    done = [(cell.name, cell.run) for cell in sweep.cells if cell.run and cell.run.final]
    notes = []
    budgets = sorted((run.budget_s, name) for name, run in done if run.budget_s)
    if budgets and time(budgets[0][0]) != time(budgets[-1][0]):
        ends = " to ".join(f"{time(budget)} ({name})" for budget, name in (budgets[0], budgets[-1]))
        notes.append(f"Budgets differ, from {ends}: who had more time may have learned more for that alone.")
    if short := [f"{name} ({said})" for name, run in done if (said := cut(run))]:
        notes.append(f"Cut short by the budget, and yet in the means like the others: {', '.join(short)}.")
    versions = [run.summary.get("versions") or {} for _, run in done]
    names = dict.fromkeys(name for of_run in versions for name in of_run)
    if differing := [name for name in names if len({of_run.get(name) for of_run in versions}) > 1]:
        notes.append(f"Not all runs had the same versions of {', '.join(differing)}.")
    return notes
