"""The paper's figures as small multiples: a panel per model, a curve per setting."""

from collections.abc import Sequence
from statistics import fmean

import matplotlib as mpl
import numpy as np

from launch.reporting.exams.gains import gains
from launch.reporting.exams.results import ModelResults, Trained
from launch.reporting.plots import DASHES, FEW, LARGER, WINDOW, Panels, Plot, blank, finish, label, smooth
from launch.reporting.wording import WORDS

SMALLER = (-1.1, -0.75)
"""Inches by which a panel is wider and higher than a plot."""

ROW = 0.22
"""Inches that a model adds to the height of the plot of gains."""

ROOM = 1.05
"""Upper end of the shared axis, as a multiple of the largest value."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Updates and values."""


def figures(results: Sequence[ModelResults]) -> list[Panels]:
    """Draw mean reward, selection pass@1, length and entropy over the updates."""
    drawn = [_figure(results, metric, **words) for metric, words in WORDS["panels"].items()]
    return [each for each in drawn if each.plots]


def gained(results: Sequence[ModelResults]) -> Plot | None:
    """Draw what training gave each model in pass@1, with its interval."""
    found = gains(results)
    if not found:
        return None
    axes = blank(LARGER, SMALLER[1] + ROW * len(found))
    for place, difference in enumerate(found.values()):
        low, high = difference.interval or (difference.value, difference.value)
        axes.plot([100 * low, 100 * high], [place, place], color="C0", linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.plot(100 * difference.value, place, "o", color="C0")
    axes.axvline(0.0, color=mpl.rcParams["text.color"], linewidth=0.9, linestyle=DASHES[0])
    axes.set_yticks(range(len(found)), [*found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(visible=False)
    label(axes, "", "points")
    many = f" for {len(results)} models together" if len(results) > 1 else ""
    return finish(axes, "gains", f"Gain in pass@1 on the benchmarks; bars 95 % intervals{many}")


def _figure(results: Sequence[ModelResults], metric: str, caption: str, y: str) -> Panels:
    """Draw one metric. All panels have the same axis of values."""
    labels = [*dict.fromkeys(each.label for of in results for each in of.trained)]
    colours = dict(zip(labels, mpl.rcParams["axes.prop_cycle"].by_key()["color"] * len(labels), strict=False))
    curves = {of.path: {each.label: mean_curve(each, metric) for each in of.trained} for of in results}
    values = [value for of in curves.values() for _, line in of.values() for value in line]
    plots = []
    for number, of in enumerate(results):
        if not any(line for _, line in curves[of.path].values()):
            continue
        axes = blank(*SMALLER)
        for name, (updates, line) in curves[of.path].items():
            axes.plot(updates, line, color=colours[name], marker="o" if len(line) < FEW else "", markersize=3)
        axes.set_ylim(min(0.0, *values) * ROOM, max(0.0, *values) * ROOM or 1.0)
        label(axes, y)
        title = f"{of.name}, {of.kind}" if of.kind else of.name
        plots.append(finish(axes, f"{metric}-{number}".replace("/", "-").replace("@", "-"), title))
    return Panels(f"{caption}: means over seeds", colours, plots)


def mean_curve(trained: Trained, metric: str) -> Curve:
    """Return the mean over the runs of a setting, as far as all have values, and its running mean over many updates."""
    series = [found for run in trained.repeats.runs if (found := run.series(metric))[0]]
    if not series:
        return (), ()
    first, last = max(updates[0] for updates, _ in series), min(updates[-1] for updates, _ in series)
    known = sorted({update for updates, _ in series for update in updates if first <= update <= last})
    lines = [np.interp(known, *each).tolist() for each in series]
    return known, smooth(
        [fmean(values) for values in zip(*lines, strict=True)], int(len(known) * WINDOW)
    ) if known else ()
