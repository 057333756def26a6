"""The plots of a sweep's report."""

from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from launch.reports.comparison import LEARNING_RATE, MODEL, Group, axis_name, groups, question
from launch.reports.history import Run, Sweep
from launch.reports.plots import INK, SERIES, SIZE, WINDOW, Draw, Plot, label, plot, smooth
from launch.reports.wording import figure

DASHES = ("--", ":", "-.")
"""Of lines that stand for models."""


def finals(sweep: Sweep) -> Plot | None:
    """Final accuracy by the axis in question: a dot for every seed, a bar for the interval of their mean."""
    axis = question(sweep)
    done = [group for group in groups(sweep) if group.final]
    if axis is None or not done:
        return None
    values = sweep.axes[axis]
    rests = list(dict.fromkeys(_rest(group, axis) for group in done))
    bases: dict[str, list[float]] = {}
    for run in (run for group in done for run in group.done):
        if run.base:
            bases.setdefault(_model(run), []).append(run.base["pass@1"])

    def draw(axes: Axes) -> None:
        for group in done:
            number = rests.index(_rest(group, axis))
            x = values.index(group.settings[axis]) + (number - (len(rests) - 1) / 2) * 0.6 / len(rests)
            colour = SERIES[number % len(SERIES)]
            mean = group.final
            assert mean is not None
            if mean.interval:
                low, high = np.clip(mean.interval, 0, 1)
                axes.plot([x, x], [low, high], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt")
            axes.plot([x - 0.08, x + 0.08], [mean.value] * 2, color=colour, linewidth=2)
            spread = np.linspace(-0.05, 0.05, len(group.values)) if len(group.values) > 1 else [0.0]
            axes.plot([x + d for d in spread], group.values, "o", color=colour, markersize=4)
        for number, rest in enumerate(rests):
            axes.plot([], [], "o", color=SERIES[number % len(SERIES)], label=_words(rest) or "trained")
        for (model, levels), style in zip(bases.items(), cycle(DASHES), strict=False):
            name = f"before, {model}" if len(bases) > 1 else "before"
            axes.axhline(fmean(levels), color=INK, linewidth=0.9, linestyle=style, label=name)
        axes.set_xticks(range(len(values)), [figure(value) for value in values])
        axes.set_xlim(-0.6, len(values) - 0.4)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        label(axes, "held-out pass@1", axis_name(axis), len(rests) + len(bases))

    caption = f"Final accuracy by {axis_name(axis)}: a dot a seed, bars 95 % intervals of the mean"
    return plot("finals", caption, draw, SIZE[1] + 0.2)


def by_learning_rate(sweep: Sweep) -> Plot | None:
    axis = question(sweep)
    if axis is None or axis == LEARNING_RATE or LEARNING_RATE not in sweep.axes:
        return None
    done = [group for group in groups(sweep) if group.final]
    lines = list(dict.fromkeys(_rest(group, LEARNING_RATE) for group in done))

    def draw(axes: Axes) -> None:
        for number, rest in enumerate(lines):
            spots = [
                (group.settings[LEARNING_RATE], group.final.value)
                for group in done
                if group.final and _rest(group, LEARNING_RATE) == rest
            ]
            rates, means = zip(*sorted(spots), strict=True)
            axes.plot(
                rates,
                means,
                "o-",
                color=SERIES[number % len(SERIES)],
                markersize=4,
                label=_words(rest),
            )
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        rates_shown = sorted({group.settings[LEARNING_RATE] for group in done})
        axes.set_xticks(rates_shown, [figure(float(rate)) for rate in rates_shown])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        label(axes, "held-out pass@1", "learning rate", len(lines))

    return plot("rates", "Mean final accuracy by learning rate", draw, SIZE[1] + 0.2) if lines else None


OVERLAYS = {
    "reward/accuracy": ("Accuracy of the samples trained on", "share correct"),
    "validation/pass@1": ("Validation", "pass@1"),
    "policy/entropy": ("Entropy of the policy", "nats per token"),
    "policy/kl_to_base": ("KL divergence from the base model", "nats per token"),
    "completion/mean_length": ("Length of the responses", "tokens"),
}


def overlaid(sweep: Sweep) -> list[Plot]:
    """The curves of all runs in one plot for each metric, coloured by the axis in question, dashed by model."""
    axis = question(sweep)
    values: tuple[Any, ...] = sweep.axes[axis] if axis else (None,)
    runs = [(cell.settings[axis] if axis else None, cell.run) for cell in sweep.cells if cell.run]
    models = list(dict.fromkeys(_model(run) for _, run in runs))
    dashes = dict(zip(models, cycle(("-", *DASHES)), strict=False))

    def drawing(metric: str, y: str) -> Draw:
        def draw(axes: Axes) -> None:
            for value, run in runs:
                updates, line = run.series(metric)
                if updates:
                    colour = SERIES[values.index(value) % len(SERIES)]
                    window = max(int(len(updates) * WINDOW), 1)
                    style = dashes[_model(run)]
                    axes.plot(updates, smooth(line, window), color=colour, linewidth=1.1, alpha=0.85, linestyle=style)
            for number, value in enumerate(values if axis else ()):
                axes.plot([], [], color=SERIES[number % len(SERIES)], label=_words(((str(axis), value),)))
            for model in models if len(models) > 1 and axis != MODEL else ():
                axes.plot([], [], color=INK, linewidth=1.1, linestyle=dashes[model], label=model)
            label(axes, y, lines=len(values) + len(models) - 1)

        return draw

    return [
        plot(metric.replace("/", "-").replace("@", "-"), f"{caption}: the running mean of each run", drawing(metric, y))
        for metric, (caption, y) in OVERLAYS.items()
        if any(run.series(metric)[0] for _, run in runs)
    ]


Settings = tuple[tuple[str, Any], ...]


def _rest(group: Group, axis: str) -> Settings:
    """The settings of a group but for one."""
    return tuple((key, value) for key, value in group.settings.items() if key != axis)


def _words(settings: Settings) -> str:
    """Models are told without their owner or folder."""
    told = ((axis_name(key), Path(str(value)).name if key == MODEL else figure(value)) for key, value in settings)
    return ", ".join(f"{name} {value}" for name, value in told)


def _model(run: Run) -> str:
    return Path(str(run.config.get(MODEL, ""))).name
