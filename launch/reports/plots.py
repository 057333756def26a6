"""Plots as SVG to be put into a page, which gives them its colours and its font."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from launch.reports.history import Run
from launch.reports.tables import token_classes
from launch.reports.verdict import Change

SIZE = (3.5, 2.35)
"""Inches. So narrow that a phone shows the text at its size; a desktop puts several beside each other."""

INK, RULE, PAPER = "#3c3f46", "#d9dade", "#fdfdfc"

SERIES = ("#0a6cbc", "#c4501b", "#1b8a5a", "#8b4fc0", "#a17a00", "#c13a73", "#00838f", "#6b7280")
"""Told apart also by most who do not see colours as others do; on dark pages style.css has lighter ones."""

VARIABLES = {
    INK: "ink-soft",
    RULE: "rule",
    PAPER: "paper",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES)},
}

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.0,
    "figure.constrained_layout.use": True,
}

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
    """name: a word, unique on its page. caption: what it shows, with units. svg: markup without any text of others."""

    name: str
    caption: str
    svg: str


Draw = Callable[[Axes], None]


def plot(name: str, caption: str, draw: Draw, height: float = SIZE[1]) -> Plot:
    style: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style):
        page = Figure(figsize=(SIZE[0], height))
        draw(page.add_subplot())
        file = io.StringIO()
        page.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return Plot(name, caption, to_inline(file.getvalue(), name, caption))


def to_inline(svg: str, name: str, caption: str) -> str:
    """An SVG file as an element of a page: names of its own, the page's colours and font, as wide as there is room."""
    _, _, width, height = re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', svg).groups()  # type: ignore[union-attr]
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|font-family: [^;\"]*;? ?", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}">{body}'


def curve(axes: Axes, run: Run, name: str, label: str = "", colour: str = SERIES[0]) -> None:
    """A metric over the updates: pale, and its running mean where there are enough updates for one."""
    updates, values = run.series(name)
    window = int(len(updates) * WINDOW)
    if window > 1:
        axes.plot(updates, values, color=colour, alpha=0.25, linewidth=0.7)
        values = smooth(values, window)
    axes.plot(updates, values, color=colour, label=label, marker="o" if len(updates) < FEW else "", markersize=3)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Means over up to `window` values on either side; of fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(len(values))
    low, high = np.maximum(ends - window, 0), np.minimum(ends + window + 1, len(values))
    return list((sums[high] - sums[low]) / (high - low))


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


def curves(run: Run) -> list[Plot]:
    """Of all metrics that the run has."""
    plots = [plot(family.name, family.caption, _family(run, family)) for family in FAMILIES if family.present(run)]
    if norms := run.names("adapter/norm/"):
        plots.append(_norms(run, norms))
    if len(run.names("ledger/tokens/")) and run.rows:
        plots.append(_tokens_over_time(run))
    return plots


@dataclass(frozen=True)
class Family:
    """Metrics that share a plot. metrics: with the labels of their lines. share: in %, from 0 up."""

    name: str
    caption: str
    y: str
    metrics: dict[str, str]
    share: bool = False

    def present(self, run: Run) -> list[str]:
        """Metrics that the run has, without those that are zero or say the same as one before."""
        lines = {metric: run.series(metric)[1] for metric in self.metrics}
        kept: list[str] = []
        for metric, values in lines.items():
            if any(values) and all(values != lines[other] for other in kept):
                kept.append(metric)
        return kept


FAMILIES = (
    Family(
        "reward",
        "Reward and accuracy of the samples trained on",
        "reward; share correct",
        {"reward/accuracy": "accuracy", "reward/mean": "reward", "reward/format": "format"},
    ),
    Family(
        "validation", "Validation: pass@1 on held-out problems", "share solved", {"validation/pass@1": "pass@1"}, True
    ),
    Family(
        "length",
        "Length of the responses",
        "tokens",
        {"completion/mean_length": "in training", "validation/mean_length": "in validation"},
    ),
    Family(
        "entropy",
        "Entropy of the policy",
        "nats per token",
        {"policy/entropy": "on samples", "canary/entropy": "on the probe"},
    ),
    Family("kl", "KL divergence from the base model", "nats per token", {"policy/kl_to_base": "KL"}),
    Family(
        "mismatch",
        "Engine against learner: difference of log-probabilities",
        "nats per token",
        {"mismatch/abs_mean": "in training", "canary/disagreement": "same version, on the probe"},
    ),
    Family(
        "waste",
        "Groups without variance, responses cut off",
        "share",
        {"groups/zero_variance": "no variance", "completion/truncated": "cut off"},
        True,
    ),
    Family("speed", "Speed of generation", "tokens per second", {"rollout/tokens_per_second": "speed"}),
)


def _family(run: Run, family: Family) -> Draw:
    def draw(axes: Axes) -> None:
        present = family.present(run)
        for number, metric in enumerate(present):
            curve(axes, run, metric, family.metrics[metric], SERIES[number])
        if family.share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if _low(axes) < 0 else 0.0)
        label(axes, family.y, lines=len(present))
        _mark_collapses(axes, run)

    return draw


def _low(axes: Axes) -> float:
    return min((float(np.min(line.get_ydata())) for line in axes.get_lines()), default=0.0)


def _mark_collapses(axes: Axes, run: Run) -> None:
    for event in run.events:
        if str(event.get("event", "")).startswith("collapse"):
            axes.axvline(event["update"], color=SERIES[1], linewidth=0.8, linestyle=":")


def _norms(run: Run, names: list[str]) -> Plot:
    def draw(axes: Axes) -> None:
        for number, name in enumerate(names):
            updates, values = run.series(name)
            axes.plot(updates, values, color=SERIES[number % len(SERIES)], label=name.removeprefix("adapter/norm/"))
        axes.set_ylim(bottom=0)
        label(axes, "Frobenius norm", lines=len(names))

    return plot("norm", "Size of the adapter by kind of weights, over all layers", draw, SIZE[1] + 0.3)


def _tokens_over_time(run: Run) -> Plot:
    names = [name for name in run.names("ledger/tokens/") if any(run.series(name)[1])]
    updates = [int(row["update"]) for row in run.rows]

    def draw(axes: Axes) -> None:
        heights = [[float(row.get(name) or 0.0) / 1000 for row in run.rows] for name in names]
        labels = [name.removeprefix("ledger/tokens/").replace("_", " ") for name in names]
        axes.stackplot(updates, heights, labels=labels, colors=SERIES, linewidth=0)
        label(axes, "thousand tokens", lines=len(names))

    return plot("tokens", "Tokens generated so far, by what became of them", draw, SIZE[1] + 0.3)


KINDS = {
    "work": ("generate", "update", "training", "verify"),
    "waiting": ("wait_rollouts", "wait_learner"),
    "start": ("start", "starting"),
    "evaluation": ("evaluate", "validate", "finishing"),
    "canary": ("canary",),
    "swap": ("sync",),
    "checkpoint": ("checkpoint",),
    "recovery": ("recover", "recovering"),
}
"""What actors do, by kind; the kinds have colours. What is in none of them is waiting."""


def kind_of(activity: str) -> str:
    return next((kind for kind, activities in KINDS.items() if activity in activities), "waiting")


def day(run: Run) -> Plot | None:
    """The ledger: what every actor did with the time of the run."""
    actors = {name: times for name, times in (run.ledger.get("seconds") or {}).items() if sum(times.values())}
    if not actors:
        return None
    longest = max(sum(times.values()) for times in actors.values())
    unit, size = ("hours", 3600.0) if longest > 7200 else ("minutes", 60.0) if longest > 120 else ("seconds", 1.0)
    colours = dict(zip(KINDS, SERIES, strict=True))
    present = [
        kind for kind in KINDS if any(kind_of(activity) == kind for times in actors.values() for activity in times)
    ]

    def draw(axes: Axes) -> None:
        for row, times in enumerate(actors.values()):
            left = 0.0
            for activity in sorted(times, key=lambda name: (present.index(kind_of(name)), -times[name])):
                name, width = activity.replace("_", " "), times[activity] / size
                axes.barh(row, width, left=left, height=0.62, color=colours[kind_of(activity)], linewidth=0)
                if width * size > longest * LETTER * (len(name) + 1):
                    axes.text(left + width / 2, row, name, ha="center", va="center", fontsize=7, color=PAPER)
                left += width
        for kind in present:
            axes.barh(0, 0, color=colours[kind], label=kind)
        axes.set_yticks(range(len(actors)), list(actors))
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        label(axes, "", unit, len(present))

    return plot("day", f"What each actor did, in {unit}", draw, SIZE[1] + 0.5)


def fate(run: Run) -> Plot | None:
    """What became of all tokens."""
    classes = token_classes(run)
    if not classes:
        return None
    names = sorted(classes, key=lambda name: classes[name])

    def draw(axes: Axes) -> None:
        axes.barh([name.replace("_", " ") for name in names], [classes[n] / 1000 for n in names], color=SERIES[0])
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        label(axes, "", "thousand tokens")

    return plot("fate", "What became of the generated tokens", draw)


def before_after(found: Change) -> Plot:
    """pass@1 before and after, with their intervals."""
    levels = (found.before, found.after)
    highest = max(level.interval[1] if level.interval else level.value for level in levels)

    def draw(axes: Axes) -> None:
        for row, level in enumerate(levels):
            if level.interval:
                ends = list(level.interval)
                axes.plot(ends, [row, row], color=SERIES[row], linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.plot(level.value, row, "o", color=SERIES[row], markersize=6, clip_on=False)
        axes.set_yticks([0, 1], ["before", "after"])
        axes.set_ylim(1.6, -0.6)
        axes.set_xlim(0, min(1.2 * highest, 1) or 1)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        label(axes, "", "held-out pass@1")

    intervals = " with 95 % intervals over problems" if found.after.interval else ""
    return plot("before-after", f"Held-out pass@1{intervals}", draw, 1.35)


def effective_ranks(run: Run) -> Plot | None:
    """Effective rank of BA over the layers, a line for each kind of weights."""
    ranks = run.plasticity.get("effective_rank") or {}
    lines: dict[str, list[tuple[int, float]]] = {}
    for place, rank in ranks.items():
        layer, _, module = str(place).partition(".")
        if layer.isdigit():
            lines.setdefault(module, []).append((int(layer), float(rank)))
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for number, (module, spots) in enumerate(lines.items()):
            layers, values = zip(*sorted(spots), strict=True)
            axes.plot(layers, values, color=SERIES[number % len(SERIES)], label=module)
        axes.set_ylim(bottom=0)
        label(axes, "effective rank", "layer", len(lines))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=STEPS))

    return plot("rank", "Effective rank of the adapter's BA, by layer", draw, SIZE[1] + 0.3)
