"""Make the pictures of README.md from quickstarts.

    bash launch/quickstart.sh | tee quickstart.log
    .venv/bin/python -m tests.pictures quickstart.log runs/quickstart [further runs, such as runs/seed-1 …]
    .venv/bin/python -m tests.pictures runs/paper_small-sweep
    .venv/bin/python -m tests.pictures gallery runs/carries runs/units …

Writes docs/images/console.svg and report.png of the first run and learning.png of all of them, or paper_small.png of a
sweep, or gallery.png. Chromium draws the reports.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.text import Text

from microbudget_rl.actors.messages import Progress
from microbudget_rl.launch.reporting.history import Run, read_run
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
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main(arguments: Sequence[str]) -> None:
    log, *folders = map(Path, arguments)
    if not folders:
        draw(log, "paper_small.png", height=2700)
        return
    runs = [read_run(folder) for folder in folders]
    if str(log) == "gallery":
        gallery(runs)
        return
    console(log.read_text().splitlines(), runs[0])
    learning(runs)
    draw(folders[0], "report.png", height=800)


def draw(folder: Path, name: str, height: int) -> None:
    """Draw the beginning of the report in a folder. height: pixels."""
    page, size = (folder / "report.html").resolve().as_uri(), f"--window-size=1280,{height}"
    with TemporaryDirectory() as profile:
        picture = f"--screenshot={IMAGES / name}"
        subprocess.run(
            [CHROMIUM, *FLAGS, size, f"--user-data-dir={profile}", picture, page], check=True, capture_output=True
        )


def console(lines: Sequence[str], run: Run) -> None:
    """Draw what a terminal shows: the plan's conclusion, a moment of the training, and the end."""
    screen = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    screen.print(Text("$ bash launch/quickstart.sh", "bold"))
    for line in (line for line in lines if line.startswith(SHOWN)):
        screen.print(Text(line, "bold green" if line.startswith(SHOWN[0]) else ""))
    row = run.rows[len(run.rows) // 2].metrics
    spent, left = row["budget/spent_s"], row["budget/left_s"]
    more = round(len(run.rows) * left / (spent + left))
    screen.print(render_progress(Progress("training", int(row["update"]), spent, left, more, row)))
    end = next(number for number, line in enumerate(lines) if line.startswith("completed"))
    for line in lines[end:]:
        screen.print(Text(line.rstrip()))
    screen.save_svg(str(IMAGES / "console.svg"), title="")


def learning(runs: Sequence[Run]) -> None:
    """Draw the accuracy of the training samples over the minutes, and the held-out results with their intervals."""
    figure = Figure(figsize=(7.1, 4.0), dpi=144)
    axes = figure.add_subplot()
    for number, run in enumerate(runs):
        minutes, values = ([row.metrics[name] for row in run.rows] for name in ("budget/spent_s", "reward/accuracy"))
        minutes, colour = [second / 60 for second in minutes], f"C{2 * number}"
        axes.plot(minutes, values, color=colour, alpha=0.25, linewidth=0.7)
        name = f"seed {run.config.get('run.seed')}: accuracy in training, {len(run.rows)} updates"
        axes.plot(minutes, list(smooth(values, 3)), color=colour, label=name)
        found = effect(run)
        assert found
        assert run.budget_s
        for minute, level in ((0, found.before), (run.budget_s / 60, found.after)):
            place = minute + 0.06 * (number - (len(runs) - 1) / 2)
            axes.plot([place] * 2, level.interval, color=colour, marker="_", linewidth=1.2)
            axes.plot(place, level.value, "o", color=colour, clip_on=False)
    axes.plot([], [], "o-", color="0.4", label="held-out pass@1 and its 95 % interval, before and after")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(ylim=(0.0, 1.0), xlabel="minutes", ylabel="correct")
    axes.legend(loc="lower right")
    figure.savefig(IMAGES / "learning.png", transparent=False)


def gallery(runs: Sequence[Run]) -> None:
    """Draw for each run what its training samples earned, and the held-out results, over the minutes."""
    figure = Figure(figsize=(9.6, 2.5 * -(-len(runs) // 3)), dpi=120, layout="constrained")
    for number, run in enumerate(runs, start=1):
        axes = figure.add_subplot(-(-len(runs) // 3), 3, number)
        found = learned(run)
        metric = "reward/mean" if found and found.reward else "reward/accuracy"
        minutes, values = ([row.metrics[name] for row in run.rows] for name in ("budget/spent_s", metric))
        axes.plot([second / 60 for second in minutes], list(smooth(values, 3)), color="C0")
        measured = ((0, found.before), (run.summary.spent_s / 60, found.after)) if found else ()
        for minute, level in measured:
            axes.plot([minute] * 2, level.interval or [level.value] * 2, color="C1", marker="_", linewidth=1.2)
            axes.plot(minute, level.value, "o", color="C1", clip_on=False)
        axes.set(
            ylim=(0.0, 1.02),
            title=run.name,
            ylabel=f"{found.what if found else 'halted'}, {many(len(run.rows), 'update')}",
        )
    figure.supxlabel("minutes")
    figure.savefig(IMAGES / "gallery.png", transparent=False)


if __name__ == "__main__":
    main(sys.argv[1:])
