"""Draws the plots of a sweep's report."""

from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import NullLocator, PercentFormatter

from launch.reporting.comparison import Group, axis_name, finished, question
from launch.reporting.history import LEARNING_RATE, MODEL, Run, Sweep
from launch.reporting.plots import HEIGHT, WINDOW, Plot, blank, finish, label, smooth
from launch.reporting.wording import WORDS, compact

INK: Any = mpl.rcParams["text.color"]

DASHES = ("--", ":", "-.")
"""Of lines that stand for models."""


def finals(sweep: Sweep) -> Plot | None:
    """Draw final accuracy by the axis in question: a dot for every seed, a bar for the interval of their mean."""
    axis, done = question(sweep), finished(sweep)
    if axis is None or not done:
        return None
    values = sweep.axes[axis]
    rests = list(dict.fromkeys(_rest(group, axis) for group in done))
    bases: dict[str, list[float]] = {}
    for run in (run for group in done for run in group.runs):
        if run.base:
            bases.setdefault(_model(run), []).append(run.base.pass_at_1)
    axes = blank(HEIGHT + 0.2)
    for group in done:
        number, mean, seeds = rests.index(_rest(group, axis)), group.final, group.values
        x = values.index(group.settings[axis]) + (number - (len(rests) - 1) / 2) * 0.6 / len(rests)
        if mean and mean.interval:
            ends = np.clip(mean.interval, 0, 1)
            axes.plot([x, x], ends, color=f"C{number}", linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.plot([x - 0.08, x + 0.08], [fmean(seeds)] * 2, color=f"C{number}", linewidth=2)
        spread = np.linspace(-0.05, 0.05, len(seeds)) if len(seeds) > 1 else np.zeros(1)
        axes.plot(x + spread, seeds, "o", color=f"C{number}")
    for number, rest in enumerate(rests):
        axes.plot([], [], "o", color=f"C{number}", label=_words(rest) or "trained")
    for (model, levels), style in zip(bases.items(), cycle(DASHES), strict=False):
        name = f"before, {model}" if len(bases) > 1 else "before"
        axes.axhline(fmean(levels), color=INK, linewidth=0.9, linestyle=style, label=name)
    axes.set_xticks(range(len(values)), [compact(value) for value in values])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "held-out pass@1", axis_name(axis), len(rests) + len(bases))
    caption = f"Final accuracy by {axis_name(axis)}: a dot a seed, bars 95 % intervals of the mean"
    return finish(axes, "finals", caption)


def by_learning_rate(sweep: Sweep) -> Plot | None:
    """Draw mean final accuracy by learning rate, a line for each combination of the other settings."""
    axis, done = question(sweep), finished(sweep)
    if axis is None or axis == LEARNING_RATE or LEARNING_RATE not in sweep.axes or not done:
        return None
    lines: dict[Settings, list[tuple[float, float]]] = {}
    for group in done:
        spot = group.settings[LEARNING_RATE], fmean(group.values)
        lines.setdefault(_rest(group, LEARNING_RATE), []).append(spot)
    axes = blank(HEIGHT + 0.2)
    for rest, spots in lines.items():
        axes.plot(*zip(*sorted(spots), strict=True), "o-", label=_words(rest))
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    rates = sorted({group.settings[LEARNING_RATE] for group in done})
    axes.set_xticks(rates, [compact(float(rate)) for rate in rates])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label(axes, "held-out pass@1", "learning rate", len(lines))
    return finish(axes, "rates", "Mean final accuracy by learning rate")


def overlaid(sweep: Sweep) -> list[Plot]:
    """Draw the curves of all runs in one plot for each metric."""
    return [_overlay(sweep, metric) for metric in WORDS["overlays"] if any(run.series(metric)[0] for run in sweep.runs)]


def _overlay(sweep: Sweep, metric: str) -> Plot:
    """Draw a metric of all runs, coloured by the axis in question, dashed by model."""
    axis, words = question(sweep), WORDS["overlays"][metric]
    values: tuple[Any, ...] = sweep.axes[axis] if axis else (None,)
    models = list(dict.fromkeys(_model(run) for run in sweep.runs if run.begun))
    dashes = dict(zip(models, cycle(("-", *DASHES)), strict=False))
    axes = blank()
    for run in sweep.runs:
        updates, line = run.series(metric)
        if updates:
            colour = f"C{values.index(run.settings.get(axis)) if axis else 0}"
            means = smooth(line, max(int(len(updates) * WINDOW), 1))
            axes.plot(updates, means, color=colour, linewidth=1.1, alpha=0.85, linestyle=dashes[_model(run)])
    for number, value in enumerate(values if axis else ()):
        axes.plot([], [], color=f"C{number}", label=_words(((str(axis), value),)))
    for model in models if len(models) > 1 and axis != MODEL else ():
        axes.plot([], [], color=INK, linewidth=1.1, linestyle=dashes[model], label=model)
    label(axes, words["y"], lines=len(values) + len(models) - 1)
    return finish(axes, metric.replace("/", "-").replace("@", "-"), f"{words['caption']}: the running mean of each run")


Settings = tuple[tuple[str, Any], ...]


def _rest(group: Group, axis: str) -> Settings:
    """Return the settings of a group but for one."""
    return tuple((key, value) for key, value in group.settings.items() if key != axis)


def _words(settings: Settings) -> str:
    """Return settings in words, models without their owner or folder."""
    plain = {key: Path(str(value)).name if key == MODEL else compact(value) for key, value in settings}
    return ", ".join(f"{axis_name(key)} {value}" for key, value in plain.items())


def _model(run: Run) -> str:
    return Path(run.model).name
