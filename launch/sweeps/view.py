"""What a person sees of a sweep: a line a cell while it goes on, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.formats import duration
from launch.plan.forecast import forecast
from launch.plan.plan import Plan
from launch.sweeps.grid import Grid

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}

AVERAGED = "run.seed"
"""The axis over which means are taken."""


@dataclass(frozen=True)
class Line:
    """How a cell stands. spent, budget: seconds. accuracy: of the last update's samples. summary: once it is over."""

    cell: str
    overrides: dict[str, Any]
    status: str
    reason: str | None
    spent: float
    budget: float
    updates: int = 0
    accuracy: float | None = None
    summary: dict[str, Any] | None = None

    @property
    def evaluations(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Before and after, where both were measured."""
        found = self.summary["eval"] if self.summary else {}
        return (found["base"], found["final"]) if found.get("base") and found.get("final") else None


def render(lines: Sequence[Line], left: float) -> RenderableType:
    """Show every cell in a line, and when the sweep is expected to end. left: seconds."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("cell", "status", "spent", "updates", "accuracy"):
        table.add_column(name, no_wrap=name != "status", justify="left" if name in ("cell", "status") else "right")
    for line in lines:
        table.add_row(
            line.cell,
            Text(line.status, STYLE.get(line.status, "")),
            f"{line.spent / line.budget:.0%} of {duration(line.budget)}",
            str(line.updates or ""),
            "" if line.accuracy is None else f"{line.accuracy:.2f}",
        )
    return Group(table, Text(remaining(left), style="dim"))


def describe(line: Line) -> str:
    """Return how a cell stands in one line of text."""
    words = f"{line.cell}: {line.status}"
    if line.spent:
        words += f", {duration(line.spent)} of {duration(line.budget)}, {line.updates} updates"
    return words + (f", {line.reason}" if line.reason else "")


def remaining(left: float) -> str:
    end = datetime.now() + timedelta(seconds=left)
    return f"about {duration(left)} left, until {end:%H:%M}" + (f" on {end:%d %B}" if left > 43200 else "")


def results(lines: Sequence[Line]) -> RenderableType:
    """Show held-out accuracy of every cell, with its interval, and means over seeds."""
    table = Table(box=None, padding=(0, 2, 0, 0), title="held-out pass@1", title_justify="left", title_style="bold")
    for name in ("cell", "before", "after", "95 % interval", "status"):
        table.add_column(name, justify="left" if name in ("cell", "status") else "right")
    for line in lines:
        figures = ("", "", "")
        if line.evaluations:
            base, final = line.evaluations
            low, high = final["ci95"]
            figures = (f"{base['pass@1']:.3f}", f"{final['pass@1']:.3f}", f"{low:.3f}–{high:.3f}")
        table.add_row(line.cell, *figures, Text(line.status, STYLE.get(line.status, "")))
    return Group(table, *([_means(lines)] if any(AVERAGED in line.overrides for line in lines) else []))


def _means(lines: Sequence[Line]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), title="\nover seeds", title_justify="left", title_style="bold")
    for name in ("", "mean after", "lowest–highest", "seeds"):
        table.add_column(name, justify="right" if name else "left")
    for name, after in over_seeds(lines).items():
        table.add_row(name, f"{fmean(after):.3f}", f"{min(after):.3f}–{max(after):.3f}", str(len(after)))
    return table


def over_seeds(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Return held-out accuracy after training, by what cells have in common but for their seed."""
    groups: dict[str, list[float]] = {}
    for line in lines:
        if line.evaluations:
            name = line.cell.removesuffix(f"seed{line.overrides.get(AVERAGED)}").rstrip("-") or "all"
            groups.setdefault(name, []).append(line.evaluations[1]["pass@1"])
    return groups


def render_plans(grid: Grid, plans: dict[str, Plan], lanes: int) -> RenderableType:
    """Show what every cell would be on its lane's part of the machine, and the whole in hours. Of the trials of one
    rung and setting, which take as long as each other, the first stands for all.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("cell", "memory", "budget", "an update", "updates", "evaluations"):
        table.add_column(name, justify="left" if name == "cell" else "right")
    for cell in grid.all:
        if cell.trial and cell.trial.place:
            continue
        plan = plans[cell.name]
        figures = ("", "", "")
        if plan.estimate:
            expected = forecast(plan)
            evaluations = duration(2 * expected.evaluate_s)
            figures = (duration(expected.update_s), f"{expected.updates:,}", evaluations)
        fits = "fits" if plan.fits else Text("does not fit", "bold red")
        table.add_row(cell.name, fits, duration(plan.config.budget.seconds), *figures)
    seconds = [plans[cell.name].config.budget.seconds for cell in grid.all]
    total, longest = sum(seconds), max(sum(seconds[number::lanes]) for number in range(lanes))
    machine = next(iter(plans.values())).machine
    way, where = "one after another", machine.name
    if lanes > 1:
        way, where = f"{lanes} at a time: {duration(longest)}", f"one {machine.name} each"
    cells = f"{len(grid.trials)} trials and {len(grid.cells)} cells" if grid.trials else f"{len(grid.cells)} cells"
    price = next(iter(plans.values())).config.budget.price_per_hour
    cost = "" if price is None else f", {price * lanes * longest / 3600:,.2f} at {price:.2f} an hour"
    unfit = sum(not plan.fits for plan in plans.values())
    fits = Text(f"{unfit} of {len(plans)} do not fit. ", "bold red") if unfit else Text("All fit. ", "bold green")
    said = fits + Text(f"{cells} on {where}: {duration(total)} in all, {way}{cost}", "")
    return Group(said, Text(), table, *_tuning(grid, plans))


def _tuning(grid: Grid, plans: dict[str, Plan]) -> list[Text]:
    """Say how the time is split between trials and the grid itself."""
    if not grid.trials:
        return []
    rungs: dict[int, list[float]] = {}
    for cell in grid.trials:
        if cell.trial and cell.setting == grid.trials[0].setting:
            rungs.setdefault(cell.trial.rung, []).append(plans[cell.name].config.budget.seconds)
    steps = ", then ".join(f"{len(each)} for {duration(each[0])} each" for each in rungs.values())
    factors = ", ".join(f"{factor:g}" for factor in sorted(grid.settings.tune_factors))
    settings = len({cell.setting for cell in grid.cells})
    return [
        Text(
            f"Tuning takes {grid.settings.tune_share:.0%} of it: for each of {settings} settings, learning rates of"
            f" {factors} times its own, {steps}; all seeds of the setting get the best."
        )
    ]
