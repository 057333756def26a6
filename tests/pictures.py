"""Make the pictures of README.md from quickstarts.

    bash launch/quickstart.sh | tee quickstart.log
    .venv/bin/python -m tests.pictures quickstart.log runs/quickstart [further runs, such as runs/seed-1 …]
    .venv/bin/python -m tests.pictures runs/paper_small-sweep
    .venv/bin/python -m tests.pictures gallery runs/carries runs/units …
    .venv/bin/python -m tests.pictures healthy-and-collapsed runs/quickstart runs/collapsed

Writes docs/images/console.svg and report.png of the first run and learning.png of all of them, or paper_small.png of a
sweep, or the picture that is named. Chromium draws the reports.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console, RenderableType
from rich.text import Text

from microbudget_rl.actors.evaluation.statistics import Mean
from microbudget_rl.actors.messages import Progress
from microbudget_rl.actors.results import Results, read_run
from microbudget_rl.launch.reporting.plots import smooth
from microbudget_rl.launch.reporting.run_conclusion import effect, learned
from microbudget_rl.launch.reporting.wording import many
from microbudget_rl.launch.session.console import render_progress
from tests.conftest import ROOT
from tests.launch.test_report import CHROMIUM

IMAGES = ROOT / "docs" / "images"
COLUMNS = 100
SHOWN = ("Fits.", "Problems:", "Base model:")
"""Beginnings of the lines before the training that the console's picture shows."""
SECONDS, MOMENTS, REST = 20, 15, 10
"""Length of the console's picture, moments of the training that it shows, and steps for which it shows the end."""
STYLE = ".one {visibility: hidden; animation: turn %ds step-end infinite} @keyframes turn {0%% {visibility: visible}"
STYLE += " %.2f%% {visibility: hidden}} @media (prefers-reduced-motion) {.one {animation: none}}"
HEALTH = {"reward/accuracy": 1.0, "policy/entropy": None, "groups/zero_variance": 1.0}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main(arguments: Sequence[str]) -> None:
    log, *folders = map(Path, arguments)
    runs = [read_run(folder) for folder in folders]
    if not runs:
        draw(log, "paper_small.png", height=2700)
    elif str(log) == "gallery":
        gallery(runs)
    elif str(log) == "healthy-and-collapsed":
        health(runs)
    else:
        console(log.read_text().splitlines(), runs[0])
        learning(runs)
        draw(folders[0], "report.png", height=800)


def draw(folder: Path, name: str, height: int) -> None:
    """Draw the beginning of the report in a folder. height: pixels."""
    page = (folder / "report.html").resolve().as_uri()
    with TemporaryDirectory() as profile:
        own = f"--window-size=1280,{height}", f"--user-data-dir={profile}", f"--screenshot={IMAGES / name}"
        subprocess.run([CHROMIUM, *FLAGS, *own, page], check=True, capture_output=True)


def console(lines: Sequence[str], run: Results) -> None:
    """Draw what a terminal shows: the plan's conclusion, the training, and the end, on which each is shown in turn."""
    head: list[RenderableType] = [Text("$ bash launch/quickstart.sh", "bold")]
    head += [Text(line, "bold green" * line.startswith(SHOWN[0])) for line in lines if line.startswith(SHOWN)]
    end = next(number for number, line in enumerate(lines) if line.startswith("completed"))
    screens = [[*head, *(Text(line.rstrip()) for line in lines[end:])], *(head[:n] for n in range(1, len(head) + 1))]
    for row in (run.rows[(len(run.rows) - 1) * part // MOMENTS].metrics for part in range(MOMENTS + 1)):
        done, spent, left = int(row["update"]), row["budget/spent_s"], row["budget/left_s"]
        screens.append([*head, render_progress(Progress("training", done, spent, left, len(run.rows) - done, row))])
    step, rows, frames = SECONDS / (len(screens) + REST), 0, list[str]()
    for number, screen in enumerate(screens):
        shown = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        shown.print(*screen, sep="\n")
        rows = rows or shown.export_text(clear=False).count("\n") + 1
        shown.print(*[""] * (rows - shown.export_text(clear=False).count("\n")), sep="\n")
        frames.append(shown.export_svg(title="", unique_id=f"f{number}"))
    moved = (
        f'<g class="one" style="animation-delay: {n * step - SECONDS:.2f}s">{each}</g>'
        for n, each in enumerate(frames[1:])
    )
    style = STYLE % (SECONDS, 100 * step / SECONDS)
    outer = frames[0].partition(">")[0].replace('class="rich-terminal"', "")
    (IMAGES / "console.svg").write_text(f"{outer}><style>{style}</style>{frames[0]}{''.join(moved)}</svg>")


def curve(axes: Axes, run: Results, metric: str, colour: str, label: str = "") -> None:
    """Draw a metric over the minutes of the updates that have it."""
    rows = [row.metrics for row in run.rows if metric in row.metrics]
    spent, values = ([row[name] for row in rows] for name in ("budget/spent_s", metric))
    minutes = [second / 60 for second in spent]
    axes.plot(minutes, values, color=colour, alpha=0.25, linewidth=0.7)
    axes.plot(minutes, list(smooth(values, 3)), color=colour, label=label)


def level(axes: Axes, minute: float, found: Mean, colour: str) -> None:
    axes.plot([minute] * 2, found.interval or (found.value, found.value), color=colour, marker="_", linewidth=1.2)
    axes.plot(minute, found.value, "o", color=colour, clip_on=False)


def learning(runs: Sequence[Results]) -> None:
    """Draw the accuracy of the training samples over the minutes, and the held-out results with their intervals."""
    figure = Figure(figsize=(7.1, 4.0), dpi=144)
    axes = figure.add_subplot()
    for number, run in enumerate(runs):
        colour, aside, found = f"C{2 * number}", 0.06 * (number - (len(runs) - 1) / 2), effect(run)
        name = f"seed {run.config.get('run.seed')}: accuracy in training, {len(run.rows)} updates"
        curve(axes, run, "reward/accuracy", colour, name)
        assert found
        level(axes, aside, found.before, colour)
        level(axes, (run.budget_s or 0.0) / 60 + aside, found.after, colour)
    axes.plot([], [], "o-", color="0.4", label="held-out pass@1 and its 95 % interval, before and after")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(ylim=(0.0, 1.0), xlabel="minutes", ylabel="correct")
    axes.legend(loc="lower right")
    figure.savefig(IMAGES / "learning.png", transparent=False)


def gallery(runs: Sequence[Results]) -> None:
    """Draw for each run what its training samples earned, and the held-out results, over the minutes."""
    figure = Figure(figsize=(9.6, 2.5 * -(-len(runs) // 3)), dpi=120, layout="constrained")
    for number, run in enumerate(runs, start=1):
        axes = figure.add_subplot(-(-len(runs) // 3), 3, number)
        found = learned(run)
        curve(axes, run, "reward/mean" if found and found.reward else "reward/accuracy", "C0")
        if found:
            level(axes, 0, found.before, "C1")
            level(axes, run.summary.spent_s / 60, found.after, "C1")
        what = f"{found.what if found else 'halted'}, {many(len(run.rows), 'update')}"
        axes.set(ylim=(0.0, 1.02), title=run.name, ylabel=what)
    figure.supxlabel("minutes")
    figure.savefig(IMAGES / "gallery.png", transparent=False)


def health(runs: Sequence[Results]) -> None:
    """Draw what tells a healthy run from a collapsed one, a row of curves for each."""
    figure = Figure(figsize=(9.6, 4.4), dpi=120, layout="constrained")
    for number, (run, name) in enumerate(zip(runs, ("healthy", "collapsed"), strict=True)):
        for place, (metric, top) in enumerate(HEALTH.items(), start=1):
            axes = figure.add_subplot(2, len(HEALTH), len(HEALTH) * number + place)
            curve(axes, run, metric, f"C{number}")
            axes.set(ylim=(0.0, top), title=metric, ylabel=name if place == 1 else "")
    figure.supxlabel("minutes")
    figure.savefig(IMAGES / "healthy-and-collapsed.png", transparent=False)


if __name__ == "__main__":
    main(sys.argv[1:])
