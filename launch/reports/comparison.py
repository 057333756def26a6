"""What a sweep answers: does the rank matter, and how sure is that?"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance
from typing import Any

from launch.reports.history import Cell, Row, Run, Sweep
from launch.reports.tables import PROBED, entropy_change
from launch.reports.verdict import Interval
from launch.reports.wording import figure, many, plain, span
from rewards.estimate import bootstrap_interval

RANK = "lora.rank"
LEARNING_RATE = "learner.learning_rate"

AXIS_NAMES = {RANK: "rank", LEARNING_RATE: "learning rate", "model.path": "model"}

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t at 0.975 for 1 to 30 degrees of freedom; with more, that for 30 is a little too wide."""


@dataclass(frozen=True)
class Mean:
    """interval: 95 %; over seeds if there are several, else over problems. seeds: how many values it is the mean of."""

    value: float
    interval: Interval | None
    seeds: int

    @property
    def basis(self) -> str:
        return many(self.seeds, "seed") + (", over problems" if self.seeds == 1 and self.interval else "")


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
        """Held-out pass@1 of the trained policies."""
        return [evaluation["pass@1"] for evaluation in self.finals]

    @property
    def final(self) -> Mean | None:
        values = self.values
        if not values:
            return None
        if len(values) > 1:
            low, high = over_seeds(values)
            return Mean(fmean(values), (max(low, 0.0), min(high, 1.0)), len(values))
        low, high = self.finals[0]["ci95"]
        return Mean(values[0], (low, high), 1)

    @property
    def entropy(self) -> Mean | None:
        """Relative change of the entropy per token."""
        found = [entropy_of(cell, self.probed) for cell in self.cells]
        values = [change for change in found if change is not None]
        return Mean(fmean(values), over_seeds(values) if len(values) > 1 else None, len(values)) if values else None


@dataclass(frozen=True)
class Contrast:
    """One value of an axis against another, all else equal or, with `best`, each at its best learning rate."""

    axis: str
    low: Group
    high: Group
    best: bool
    difference: float
    interval: Interval | None
    basis: str

    @property
    def shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


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
    """The first value of the axis in question against its last, everywhere both have results."""
    axis = question(sweep)
    if axis is None:
        return []
    done = [group for group in groups(sweep) if group.final]
    equal = [_contrast(axis, slice_, best=False) for slice_ in _slices(done, axis).values()]
    rated = _slices(done, axis, LEARNING_RATE) if axis != LEARNING_RATE and LEARNING_RATE in sweep.axes else {}
    best = [_contrast(axis, best_of(slice_, axis), best=True) for slice_ in rated.values()]
    return [contrast for contrast in (*equal, *best) if contrast]


def best_of(slice_: Iterable[Group], axis: str) -> list[Group]:
    """Of each value of an axis the group with the best mean."""
    best: dict[Any, Group] = {}
    for group in slice_:
        known = best.get(group.settings[axis])
        if known is None or fmean(group.values) > fmean(known.values):
            best[group.settings[axis]] = group
    return list(best.values())


def _slices(done: list[Group], *free: str) -> dict[tuple[Any, ...], list[Group]]:
    """Groups that differ in nothing but the free axes."""
    slices: dict[tuple[Any, ...], list[Group]] = {}
    for group in done:
        fixed = tuple(value for axis, value in group.settings.items() if axis not in free)
        slices.setdefault(fixed, []).append(group)
    return slices


def _contrast(axis: str, slice_: list[Group], best: bool) -> Contrast | None:
    """Between the ends of a slice, whose seeds all tell the spread. None if it has one value alone."""
    if len(slice_) < 2:
        return None
    low, high = slice_[0], slice_[-1]
    difference = fmean(high.values) - fmean(low.values)
    freedom = sum(len(group.values) - 1 for group in slice_)
    if freedom:
        squares = sum(variance(group.values) * (len(group.values) - 1) for group in slice_ if len(group.values) > 1)
        error = sqrt(squares / freedom * (1 / len(low.values) + 1 / len(high.values)))
        margin = T_975[min(freedom, len(T_975)) - 1] * error
        seeds = [many(len(group.values), "seed") for group in (high, low)]
        basis = f"{seeds[0]} each" if seeds[0] == seeds[1] else f"{seeds[0]} against {len(low.values)}"
        return Contrast(axis, low, high, best, difference, (difference - margin, difference + margin), basis)
    return Contrast(axis, low, high, best, difference, _over_problems(low, high), "1 seed each, over problems")


def _over_problems(low: Group, high: Group) -> Interval | None:
    """Of the difference between two single runs, problem by problem; None unless they judged the same ones."""
    of_low, of_high = (group.done[0].solved[1] for group in (low, high))
    common = sorted(of_low.keys() & of_high.keys())
    return bootstrap_interval([of_high[problem] - of_low[problem] for problem in common]) if common else None


def over_seeds(values: list[float]) -> Interval:
    """Student's 95 % interval of the mean of at least two values."""
    margin = T_975[min(len(values) - 1, len(T_975)) - 1] * sqrt(variance(values) / len(values))
    return fmean(values) - margin, fmean(values) + margin


def answer(sweep: Sweep) -> str:
    """The question of a sweep, answered in a sentence."""
    axis, found = question(sweep), contrasts(sweep)
    results = sum(len(group.done) for group in groups(sweep))
    have = f"{results} of {many(len(sweep.cells), 'run')} {'has' if results == 1 else 'have'} a final evaluation"
    if axis is None:
        return f"Nothing differs between these runs but the seed; {have}."
    name = axis_name(axis)
    if not found:
        return f"No verdict: no two values of the {name} can be compared yet; {have}."
    shown = [contrast.shown for contrast in found]
    lead = f"{name.capitalize()} matters here"
    if not any(shown):
        lead = f"No effect of the {name} can be shown here"
    elif not all(shown):
        lead = f"{name.capitalize()} matters here in part"
    return f"{lead}: {sentence(found[0])}."


def sentence(contrast: Contrast) -> str:
    """One comparison in words, without a full stop."""
    name = axis_name(contrast.axis)
    low, high = contrast.low.settings, contrast.high.settings
    shared = [
        f"{axis_name(axis)} {figure(value)}"
        for axis, value in low.items()
        if high[axis] == value and not (contrast.best and axis == LEARNING_RATE)
    ]
    where = ["each at its best learning rate"] if contrast.best else []
    where += [f"at {' and '.join(shared)}"] if shared else []
    rates = [
        f" ({figure(group.settings[LEARNING_RATE])})" if contrast.best else ""
        for group in (contrast.low, contrast.high)
    ]
    interval = f"95 % interval {span(contrast.interval)}; " if contrast.interval else ""
    size = plain(abs(contrast.difference) * 100)
    stands = f"{size} points {'above' if contrast.difference > 0 else 'below'}" if float(size) else "level with"
    return (
        f"{', '.join(where) + ', ' if where else ''}{name} {figure(high[contrast.axis])}{rates[1]} ends"
        f" {stands} {name} {figure(low[contrast.axis])}{rates[0]}"
        f" ({interval}{contrast.basis})"
    )


def caveats(sweep: Sweep) -> list[str]:
    """What a reader of the answer has to know."""
    missing = [cell for cell in sweep.cells if not (cell.run and cell.run.final)]
    notes = []
    if missing:
        names = ", ".join(f"{cell.name} ({cell.status.replace('_', ' ')})" for cell in missing)
        notes.append(f"Without a final evaluation, and so in no mean: {names}.")
    if sweep.others:
        notes.append(f"Setups are numbered combinations of: {', '.join(sweep.others)}.")
    if any(contrast.best for contrast in contrasts(sweep)):
        notes.append("The best of several learning rates is picked by the same evaluation: its mean is flattered.")
    if any(len(group.values) == 1 for group in groups(sweep)):
        notes.append("Where there is one seed, the interval is over problems and says nothing of other seeds.")
    if question(sweep) and any(len(group.values) > 1 for group in groups(sweep)):
        notes.append("Intervals over seeds are Student's; those of differences pool the spread of all values compared.")
    return notes
