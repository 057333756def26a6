"""Draws the plots of a report as SVG, first those of a run, then those of a sweep; the page sets their font."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from microbudget_rl.actors.coordinator.rules.selection import REWARD, SCORE
from microbudget_rl.actors.evaluation.statistics import Mean, means
from microbudget_rl.actors.results import Results
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.conf.schema.reward import weighs_answers
from microbudget_rl.launch.reporting.comparison import axis_name, finished, question
from microbudget_rl.launch.reporting.health import events
from microbudget_rl.launch.reporting.history import MODEL, Sweep
from microbudget_rl.launch.reporting.run_conclusion import Effect, learned, mean_of
from microbudget_rl.launch.reporting.wording import WORDS, compact

mpl.rcParams.update(mpl.rc_params_from_file(Path(__file__).parent / "templates" / "plots.mplstyle", False, False))

WIDTH, HEIGHT = 3.5, 2.35
"""Size of a plot, inches. A phone shows it at full size; a desktop shows several in a row."""

WINDOW = 0.06
"""Fraction of a curve's updates on either side of a point that its running mean covers."""

LARGER = 0.4
"""Inches added to width and height of the plot next to the conclusion."""

FEW = 15
"""Number of updates below which each is a dot."""

LEGEND_LETTERS, LEGEND_MARK, LEGEND_ROW = 66, 4, 0.16
"""Letters per row of the legend, width of a line's mark in letters, and height of a row in inches."""

MAP = 120, 160
"""Most rows and columns of a map of problems."""

FEWEST_COLUMNS = 2
"""Fewest updates, or validations, that make a map."""

SOLVED = 0.5
"""Fraction of right samples from which a problem counts as solved."""

SHADES = LinearSegmentedColormap.from_list("", ["#efb58a", "#0a4f86"])
"""From wrong to right, light to dark, so that a map can be read in grey too."""

DASHES = ("--", ":", "-.")
"""Styles of the lines of base models."""


@dataclass(frozen=True)
class Plot:
    """A plot on a page. name: unique on the page. caption: with units."""

    name: str
    caption: str
    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:  # for a notebook
        return self.svg


def blank(wider: float = 0.0, higher: float | None = None) -> Axes:
    """Return the axes of a new plot. wider, higher: inches added to its width and height, as many when None."""
    return Figure(figsize=(WIDTH + wider, HEIGHT + (wider if higher is None else higher))).add_subplot()


def finish(axes: Axes, name: str, caption: str) -> Plot:
    """Return the plot as an SVG element whose ids are unique on the page."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        axes.figure.figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    return Plot(name, caption, svg[svg.index("<svg") :])


def label(axes: Axes, y: str, x: str = "update", lines: int = 1) -> None:
    """Label the axes, and add a legend above them if there are several lines."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    names = axes.get_legend_handles_labels()[1]
    if lines > 1 and names:
        columns = max(LEGEND_LETTERS // (max(map(len, names)) + LEGEND_MARK), 1)
        axes.figure.legend(loc="outside upper left", ncols=columns)
        page = axes.figure.figure
        page.set_figheight(page.get_figheight() + LEGEND_ROW * ceil(len(names) / columns))
    if x == "update":
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def smooth(values: Sequence[float], window: int) -> Sequence[float]:
    """Return running means over `window` values on either side, fewer at the ends."""
    sums, counts = (np.convolve(series, np.ones(2 * window + 1)) for series in (values, np.ones(len(values))))
    return list((sums / counts)[window : window + len(values)])


def _curve(axes: Axes, run: Results, name: str, label: str, colour: str) -> None:
    """Draw a metric over the updates; with enough updates, draw it pale and its running mean over it."""
    updates, values = run.series(name)
    if (window := int(len(updates) * WINDOW)) > 1:
        axes.plot(updates, values, color=colour, alpha=0.25, linewidth=0.7)
        values = list(smooth(values, window))
    marker = "o" if len(updates) < FEW else ""
    axes.plot(updates, values, color=colour, label=label, marker=marker, markersize=3, clip_on=False)


def learning_curve(run: Results, effect: Effect | None) -> Plot | None:
    """Draw accuracy and reward in training, and held-out pass@1, or the mean reward where that weighs no answers."""
    by_reward = None if weighs_answers(run.config) else learned(run)
    effect = by_reward or effect
    lines = {"reward/accuracy": "training: accuracy", "reward/mean": "training: reward"}
    known = {metric: values for metric in lines if (values := run.series(metric)[1])}
    if known.get("reward/mean") == known.get("reward/accuracy"):  # the reward is the accuracy
        known.pop("reward/mean", None)
    end = run.rows[-1].update if run.rows else run.summary.updates
    points = {0: effect.before} if effect else {0: mean_of(run.eval.base)} if run.eval.base else {}
    result = run.summary.result.update if run.summary.result else end
    if effect and result:
        points[result] = effect.after
    if run.eval.last and not by_reward:
        points[end] = mean_of(run.eval.last)
    if not known and not points:
        return None
    axes = blank(LARGER)
    for metric in known:
        _curve(axes, run, metric, lines[metric], f"C{2 * [*lines].index(metric)}")
    validations = zip(*run.series(REWARD if run.series(REWARD)[1] else SCORE), strict=True)
    _held_out(axes, {update: Mean(value) for update, value in validations}, "validation", "C4", 3)
    if result != end:
        axes.axvline(result, color="C1", linewidth=0.8, linestyle="--", label=f"result: update {result}")
    _held_out(axes, points, f"held-out {effect.what if effect else 'pass@1'}", "C1", 5)
    warm = run.eval.warm if not by_reward else None
    _held_out(axes, {0: mean_of(warm)} if warm else {}, f"{run.start}, update 0", "C5", 5)
    _mark_collapses(axes, run)
    if "reward/mean" not in known:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    low, high = axes.get_ylim()
    axes.set_ylim(low if any(min(values) < 0 for values in known.values()) else 0.0, max(1.03, high))
    label(axes, "correct; reward" if "reward/mean" in known else "correct", lines=len(known) + 3)
    return finish(axes, "learning", "Learning curve, with 95 % intervals on the held-out problems")


def _held_out(axes: Axes, points: dict[int, Mean], name: str, colour: str, size: float) -> None:
    for update, level in points.items():
        if level.interval:
            axes.plot([update] * 2, level.interval, color=colour, marker="_", markersize=1.5 * size, linewidth=1.2)
    if points:
        values = [level.value for level in points.values()]
        axes.plot([*points], values, "o", color=colour, markersize=size, clip_on=False, label=name, zorder=3)


def curves(run: Results) -> list[Plot]:
    """Draw each family of metrics, without metrics that are always zero or equal an earlier one."""
    drawn = []
    for name, words in WORDS["curves"].items():
        lines: dict[str, list[float]] = {}
        for metric in words["metrics"]:
            values = run.series(metric)[1]
            if any(values) and values not in lines.values():
                lines[metric] = values
        if not lines:
            continue
        axes = blank()
        for number, metric in enumerate(lines):
            _curve(axes, run, metric, words["metrics"][metric], f"C{number}")
        if words.get("percent"):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(bottom=axes.get_ylim()[0] if min(map(min, lines.values())) < 0 else 0.0)
        _mark_collapses(axes, run)
        label(axes, words["y"], lines=len(lines))
        drawn.append(finish(axes, name, words["caption"]))
    return drawn


def mastery(run: Results) -> list[Plot]:
    """Draw which problems were solved when: the fraction of right samples by problem and update, one map for training
    and one for validation. Neighbours share a row or a column where there are more than a map has.
    """
    drawn = []
    for name, validation in (("training", False), ("validation", True)):
        rows = {row.update: row.right for row in run.record.solved() if row.validation == validation}
        if len(rows) < FEWEST_COLUMNS:
            continue
        first: dict[str, float] = dict.fromkeys(chain.from_iterable(rows.values()), math.inf)
        for update, right in sorted(rows.items(), reverse=True):
            first |= dict.fromkeys((problem for problem, rate in right.items() if rate >= SOLVED), update)
        problems = sorted(first, key=first.__getitem__)
        rates = [[right.get(problem, math.nan) for _, right in sorted(rows.items())] for problem in problems]
        cells = np.ma.masked_invalid(rates)
        for axis, most in enumerate(MAP):
            parts = np.array_split(cells, min(most, cells.shape[axis]), axis)
            cells = np.ma.stack([part.mean(axis) for part in parts], axis)
        axes = blank(LARGER)
        ends = min(rows) - 0.5, max(rows) + 0.5, len(problems) + 0.5, 0.5
        shown = axes.imshow(cells, SHADES, vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=ends)
        axes.figure.colorbar(shown, format=PercentFormatter(1.0), label="right samples")
        axes.grid(visible=False)
        label(axes, "problem, by when it was first solved")
        never = f"{sum(map(math.isinf, first.values()))} of {len(first)} were never solved"
        drawn.append(finish(axes, f"mastery-{name}", f"Problems of the {name}: {never}; white: not sampled"))
    return drawn


def _mark_collapses(axes: Axes, run: Results) -> None:
    for number, event in enumerate(events(run, EventKind.COLLAPSE, EventKind.ROLLED_BACK)):
        name = "_" if number else event.event  # matplotlib's legend skips names that start with it
        axes.axvline(event.update, color="C3", linewidth=0.8, linestyle=":", label=name)


def finals(sweep: Sweep) -> Plot | None:
    """Draw final accuracy by the axis in question: a dot per seed, and a bar for the interval of the mean."""
    axis, done = question(sweep), finished(sweep)
    if axis is None or not done:
        return None
    values = sweep.axes[axis]
    rests = [tuple(each for each in repeats.settings.items() if each[0] != axis) for repeats in done]
    colours = {rest: f"C{number}" for number, rest in enumerate(dict.fromkeys(rests))}
    axes = blank(LARGER)
    for repeats, rest in zip(done, rests, strict=True):
        colour, mean, seeds = colours[rest], repeats.final, repeats.values
        x = values.index(repeats.settings[axis]) + ([*colours].index(rest) + 0.5) * 0.6 / len(colours) - 0.3
        if mean and mean.interval:
            axes.plot([x, x], mean.interval, color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.plot([x - 0.08, x + 0.08], [fmean(seeds)] * 2, color=colour, linewidth=2)
        spread = np.linspace(-0.05, 0.05, len(seeds)) if len(seeds) > 1 else np.zeros(1)
        axes.plot(x + spread, seeds, "o", color=colour)
    for rest, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=_words(rest) or "trained")
    known = ((str(run.config.get(MODEL, "")), run.eval.base) for run in sweep.finished)
    bases = means((Path(model).name, base.pass_at_1) for model, base in known if base)
    for (model, share), style in zip(bases.items(), cycle(DASHES), strict=False):
        name = f"base, {model}" if len(bases) > 1 else "base"
        axes.axhline(share, color=mpl.rcParams["text.color"], linewidth=0.9, linestyle=style, label=name)
    axes.set_xticks(range(len(values)), [compact(value) for value in values])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "held-out pass@1", axis_name(axis), len(colours) + len(bases))
    caption = f"Held-out pass@1 by {axis_name(axis)}: a dot per seed, bars 95 % intervals of the mean"
    return finish(axes, "finals", caption)


def overlaid(sweep: Sweep) -> list[Plot]:
    """Draw the curves of a model's runs in a plot for each metric. The plots of a metric share the axis of values."""
    axis, drawn = question(sweep), list[Plot]()
    values: tuple[Any, ...] = sweep.axes[axis] if axis else (None,)
    apart: tuple[Any, ...] = () if axis == MODEL else sweep.axes.get(MODEL, ())
    for metric, words in WORDS["overlays"].items():
        plots = {}
        for model in apart or (None,):
            runs = [run for run in sweep.runs if not apart or run.settings.get(MODEL) == model]
            curves = [(run, *series) for run in runs if (series := run.series(metric))[0]]
            if not curves:
                continue
            axes = plots[model] = blank()
            for run, updates, line in curves:
                smoothed, marker = smooth(line, int(len(line) * WINDOW)), "o" if len(line) < FEW else ""
                colour = f"C{values.index(run.settings.get(axis)) if axis else 0}"
                axes.plot(updates, smoothed, color=colour, linewidth=1.1, alpha=0.85, marker=marker, markersize=3)
            for number, value in enumerate(values if axis else ()):
                axes.plot([], [], color=f"C{number}", label=_words(((str(axis), value),)))
            label(axes, words["y"], lines=len(values))
        ends = [axes.get_ylim() for axes in plots.values()]
        for number, (model, axes) in enumerate(plots.items()):
            axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
            name = f"{metric}-{number}" if apart else metric
            prefix = f"{_words(((MODEL, model),))}: " if apart else ""
            caption = f"{prefix}{words['caption']}, the running mean of each run"
            drawn.append(finish(axes, name.replace("/", "-").replace("@", "-"), caption))
    return drawn


def _words(settings: Iterable[tuple[str, Any]]) -> str:
    """Return settings in words. Models have no owner or folder."""
    plain = {key: Path(str(value)).name if key == MODEL else compact(value) for key, value in settings}
    return ", ".join(f"{axis_name(key)} {value}" for key, value in plain.items())
