"""Draws the plots of a sweep's report."""

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import PercentFormatter

from launch.reporting.comparison import axis_name, finished, question
from launch.reporting.history import MODEL, Sweep
from launch.reporting.plots import LARGER, WINDOW, Plot, blank, finish, label, smooth
from launch.reporting.wording import WORDS, compact

DASHES = ("--", ":", "-.")


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
    bases: dict[str, list[float]] = {}
    for run in sweep.finished:
        if run.base:
            bases.setdefault(Path(str(run.config.get(MODEL, ""))).name, []).append(run.base.pass_at_1)
    for (model, levels), style in zip(bases.items(), cycle(DASHES), strict=False):
        name = f"base, {model}" if len(bases) > 1 else "base"
        axes.axhline(fmean(levels), color=mpl.rcParams["text.color"], linewidth=0.9, linestyle=style, label=name)
    axes.set_xticks(range(len(values)), [compact(value) for value in values])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "held-out pass@1", axis_name(axis), len(colours) + len(bases))
    caption = f"Held-out pass@1 by {axis_name(axis)}: a dot per seed, bars 95 % intervals of the mean"
    return finish(axes, "finals", caption)


def overlaid(sweep: Sweep) -> list[Plot]:
    """Draw the curves of all runs in one plot for each metric, coloured by the axis in question."""
    axis, drawn = question(sweep), []
    values: tuple[Any, ...] = sweep.axes[axis] if axis else (None,)
    for metric, words in WORDS["overlays"].items():
        curves = [(run, *found) for run in sweep.runs if (found := run.series(metric))[0]]
        if not curves:
            continue
        axes = blank()
        for run, updates, line in curves:
            colour = f"C{values.index(run.settings.get(axis)) if axis else 0}"
            axes.plot(
                updates, smooth(line, max(int(len(updates) * WINDOW), 1)), color=colour, linewidth=1.1, alpha=0.85
            )
        for number, value in enumerate(values if axis else ()):
            axes.plot([], [], color=f"C{number}", label=_words(((str(axis), value),)))
        label(axes, words["y"], lines=len(values))
        caption = f"{words['caption']}: the running mean of each run"
        drawn.append(finish(axes, metric.replace("/", "-").replace("@", "-"), caption))
    return drawn


def _words(settings: Iterable[tuple[str, Any]]) -> str:
    """Return settings in words. Models have no owner or folder."""
    plain = {key: Path(str(value)).name if key == MODEL else compact(value) for key, value in settings}
    return ", ".join(f"{axis_name(key)} {value}" for key, value in plain.items())
