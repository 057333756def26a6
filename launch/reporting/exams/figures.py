"""The paper's figures as small multiples: a panel per model, a curve per setting."""

from collections.abc import Sequence
from itertools import cycle
from statistics import fmean

import matplotlib as mpl
import numpy as np

from launch.reporting.exams.gains import Models, gain
from launch.reporting.exams.results import SettingResults
from launch.reporting.plots import DASHES, FEW, LARGER, WINDOW, Panels, Plot, blank, finish, label, smooth
from launch.reporting.wording import WORDS

SMALLER = (-1.1, -0.75)
"""Inches by which a panel is wider and higher than a plot."""

ROW = 0.13
"""Inches that a setting of a model adds to the height of the plot of gains."""

ROOM = 1.05
"""Upper end of the shared axis, as a multiple of the largest value."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Updates and values."""


def figures(results: Models) -> list[Panels]:
    """Draw mean reward, selection pass@1, length and entropy over the updates."""
    drawn = [_figure(results, metric, **words) for metric, words in WORDS["panels"].items()]
    return [each for each in drawn if each.plots]


def gained(results: Models) -> Plot | None:
    """Draw what each setting gave each model in pass@1 on the benchmarks, with its interval."""
    colours = _colours(results)
    axes = blank(LARGER, SMALLER[1] + ROW * len(results) * len(colours))
    for place, of in enumerate(results):
        for number, each in enumerate(of.trained):
            if found := gain([of], pick=lambda _, own=each: [own]):  # type: ignore[misc]
                y, share = place + 0.8 * ((number + 0.5) / len(of.trained) - 0.5), found[0]
                ends = [100 * end for end in share.interval or (share.value, share.value)]
                axes.plot(ends, [y, y], color=colours[each.label], linewidth=5, alpha=0.3, solid_capstyle="butt")
                size = 6 if each is of.chosen else 3
                axes.plot(100 * share.value, y, "o", color=colours[each.label], markersize=size)
    if not axes.lines:
        return None
    for name, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=name)
    axes.axvline(0.0, color=mpl.rcParams["text.color"], linewidth=0.9, linestyle=DASHES[0])
    axes.set_yticks(range(len(results)), [of.name for of in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    label(axes, "", "points", len(colours))
    chosen = "; large dots: chosen by the selection problems" if any(of.chosen for of in results) else ""
    return finish(axes, "gains", f"Gain in pass@1 on the benchmarks, with 95 % intervals{chosen}")


def _colours(results: Models) -> dict[str, str]:
    labels = dict.fromkeys(each.label for of in results for each in of.trained)
    return dict(zip(labels, cycle(mpl.rcParams["axes.prop_cycle"].by_key()["color"]), strict=False))


def _figure(results: Models, metric: str, caption: str, y: str) -> Panels:
    """Draw one metric. All panels have the same axis of values."""
    colours = _colours(results)
    curves = {of.name: {each.label: mean_curve(each, metric) for each in of.trained} for of in results}
    values = [value for of in curves.values() for _, line in of.values() for value in line]
    plots = []
    for number, of in enumerate(results):
        if not any(line for _, line in curves[of.name].values()):
            continue
        axes = blank(*SMALLER)
        for name, (updates, line) in curves[of.name].items():
            axes.plot(updates, line, color=colours[name], marker="o" if len(line) < FEW else "", markersize=3)
        axes.set_ylim(min(0.0, *values) * ROOM, max(0.0, *values) * ROOM or 1.0)
        label(axes, y)
        title = f"{of.name}, {of.kind}" if of.kind else of.name
        plots.append(finish(axes, f"{metric}-{number}".replace("/", "-").replace("@", "-"), title))
    return Panels(f"{caption}: means over seeds", colours, plots)


def mean_curve(trained: SettingResults, metric: str) -> Curve:
    """Return the mean over the runs of a setting, as far as all have values, and its running mean over many updates."""
    series = [found for run in trained.runs if (found := run.series(metric))[0]]
    if not series:
        return (), ()
    first, last = max(updates[0] for updates, _ in series), min(updates[-1] for updates, _ in series)
    known = sorted({update for updates, _ in series for update in updates if first <= update <= last})
    lines = [np.interp(known, *each).tolist() for each in series]
    return known, smooth(
        [fmean(values) for values in zip(*lines, strict=True)], int(len(known) * WINDOW)
    ) if known else ()
