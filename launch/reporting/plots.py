"""Draws the plots of a run's report as SVG that is put into the page, which gives them its font."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from actors.storage.documents import EventKind
from launch.reporting.health import events
from launch.reporting.history import Run
from launch.reporting.tables import token_classes
from launch.reporting.verdict import Change
from launch.reporting.wording import WORDS

mpl.rcParams.update(mpl.rc_params_from_file(Path(__file__).parent / "templates" / "plots.mplstyle", False, False))

WIDTH, HEIGHT = 3.5, 2.35
"""Inches. So narrow that a phone shows the text at its size; a desktop puts several beside each other."""

WINDOW = 0.06
"""Of a curve's updates, on either side of a point of its running mean."""

FEW = 15
"""Updates up to which each is a dot."""

STEPS = [1, 2, 5, 10]
"""Between the ticks of an axis, times powers of ten."""

LEGEND_LETTERS, LEGEND_ROW, LEGEND_ROWS = 57, 0.16, 2
"""Letters that fit into a line of the legend, the height of one in inches, and lines that there is always room for."""

LETTER = 0.021
"""Of the longest bar: the width of a letter."""


@dataclass(frozen=True)
class Plot:
    """A plot on a page.

    name: a word, unique on its page.
    caption: what it shows, with units.
    """

    name: str
    caption: str
    svg: str


def blank(height: float = HEIGHT) -> Axes:
    """Return the axes of a new plot. height: inches."""
    return Figure(figsize=(WIDTH, height)).add_subplot()


def finish(axes: Axes, name: str, caption: str) -> Plot:
    """Return what was drawn, as an SVG element whose ids are its own on the page."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        axes.figure.figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    return Plot(name, caption, svg[svg.index("<svg") :])


def label(axes: Axes, y: str, x: str = "update", lines: int = 1) -> None:
    """Name the axes, and the lines above them if there are several."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if lines > 1:
        names = axes.get_legend_handles_labels()[1]
        columns = max(min(3, lines, LEGEND_LETTERS // max(map(len, names), default=1)), 1)
        axes.figure.legend(loc="outside upper left", ncols=columns)
        page = axes.figure.figure
        page.set_figheight(page.get_figheight() + LEGEND_ROW * max(-(-len(names) // columns) - LEGEND_ROWS, 0))
    if x == "update":
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=STEPS))


def smooth(values: Sequence[float], window: int) -> Sequence[float]:
    """Return means over up to `window` values on either side; of fewer at the ends."""
    sums, counts = (np.convolve(of, np.ones(2 * window + 1)) for of in (values, np.ones(len(values))))
    return list((sums / counts)[window : window + len(values)])


def smoothed(updates: int) -> int:
    """Return the updates on either side of a point of the running mean; 0 where there are too few for one."""
    window = int(updates * WINDOW)
    return window if window > 1 else 0


def _curve(axes: Axes, run: Run, name: str, label: str, colour: str) -> None:
    """Draw a metric over the updates: pale, and its running mean where there are enough updates for one."""
    updates, values = run.series(name)
    if window := smoothed(len(updates)):
        axes.plot(updates, values, color=colour, alpha=0.25, linewidth=0.7)
        values = list(smooth(values, window))
    axes.plot(updates, values, color=colour, label=label, marker="o" if len(updates) < FEW else "", markersize=3)


def _bars(axes: Axes) -> None:
    """Leave horizontal bars without the lines of a curve."""
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def curves(run: Run) -> list[Plot]:
    """Draw all metrics that the run has."""
    return [plot for name in WORDS["curves"] if (plot := _family(run, name))]


def _family(run: Run, name: str) -> Plot | None:
    """Draw the metrics that the run has, without those that are zero or say the same as one before."""
    words = WORDS["curves"][name]
    lines: dict[str, list[float]] = {}
    for metric in words["metrics"]:
        values = run.series(metric)[1]
        if any(values) and values not in lines.values():
            lines[metric] = values
    if not lines:
        return None
    axes = blank()
    for number, metric in enumerate(lines):
        _curve(axes, run, metric, words["metrics"][metric], f"C{number}")
    if words.get("percent"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    negative = min(map(min, lines.values())) < 0
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if negative else 0.0)
    label(axes, words["y"], lines=len(lines))
    for update in collapses(run):
        axes.axvline(update, color="C1", linewidth=0.8, linestyle=":")
    return finish(axes, name, words["caption"])


def collapses(run: Run) -> list[int]:
    """Return the updates at which the guard saw the policy collapse."""
    return [event.update for event in events(run, EventKind.COLLAPSE, EventKind.ROLLED_BACK)]


def in_plot(name: str) -> str:
    """Return the short name of a class of tokens or an activity."""
    return str(WORDS["in_plots"].get(name) or name.replace("_", " "))


def _kind(activity: str) -> str:
    return next((kind for kind, activities in WORDS["activities"].items() if activity in activities), "waiting")


def time_by_actor(run: Run) -> Plot | None:
    """Draw the ledger: what every actor did with the time of the run."""
    actors = {name: times for name, times in run.summary.ledger.seconds.items() if sum(times.values())}
    if not actors:
        return None
    longest = max(sum(times.values()) for times in actors.values())
    unit, size = ("hours", 3600.0) if longest > 7200 else ("minutes", 60.0) if longest > 120 else ("seconds", 1.0)
    order = list(WORDS["activities"])
    present = sorted({_kind(activity) for times in actors.values() for activity in times}, key=order.index)
    axes = blank(HEIGHT + 0.5)
    for row, times in enumerate(actors.values()):
        left = 0.0
        for activity in sorted(times, key=lambda name: (order.index(_kind(name)), -times[name])):
            name, width = in_plot(activity), times[activity] / size
            axes.barh(row, width, left=left, height=0.62, color=f"C{order.index(_kind(activity))}", linewidth=0)
            if width * size > longest * LETTER * (len(name) + 1):
                axes.text(left + width / 2, row, name, ha="center", va="center", fontsize=7, color="white")
            left += width
    for kind in present:
        axes.barh(0, 0, color=f"C{order.index(kind)}", label=kind)
    axes.set_yticks(range(len(actors)), list(actors))
    axes.invert_yaxis()
    _bars(axes)
    label(axes, "", unit, len(present))
    return finish(axes, "day", f"What each actor did, in {unit}")


def tokens_by_class(run: Run) -> Plot | None:
    """Draw what became of all tokens."""
    classes = token_classes(run)
    if not classes:
        return None
    axes = blank()
    axes.barh([in_plot(name) for name in classes], [number / 1000 for number in classes.values()])
    axes.invert_yaxis()
    _bars(axes)
    label(axes, "", "thousand tokens")
    return finish(axes, "fate", "What became of the generated tokens")


def before_after(found: Change) -> Plot:
    """Draw pass@1 before and after, with their intervals."""
    levels = (found.before, found.after)
    highest = max(level.interval[1] if level.interval else level.value for level in levels)
    axes = blank(1.35)
    for row, level in enumerate(levels):
        if level.interval:
            axes.plot(level.interval, [row, row], color=f"C{row}", linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(level.value, row, "o", color=f"C{row}", markersize=6, clip_on=False)
    axes.set_yticks([0, 1], ["before", "after"])
    axes.set_ylim(1.6, -0.6)
    axes.set_xlim(0, min(1.2 * highest, 1) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    _bars(axes)
    axes.grid(axis="x")
    label(axes, "", "held-out pass@1")
    intervals = " with 95 % intervals over problems" if found.after.interval else ""
    return finish(axes, "before-after", f"Held-out pass@1{intervals}")
