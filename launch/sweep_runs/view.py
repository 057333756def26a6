"""What a person sees of a sweep: a line a cell while it goes on, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.formats import duration
from launch.plan.estimate import Estimate
from launch.plan.options import estimate_all
from launch.plan.plan import Plan
from launch.sweep_runs.grid import Grid

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}


@dataclass(frozen=True)
class Line:
    """How a cell stands. spent, budget: seconds. accuracy: of the last update's samples. summary: once it is over."""

    cell: str
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
    """Show held-out accuracy of every cell, with its interval; means over seeds are in the report."""
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
    return table


def render_plans(grid: Grid, plans: dict[str, Plan], lanes: int) -> RenderableType:
    """Show what every cell would be on its lane's part of the machine, and the whole in hours."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("cell", "memory", "budget", "an update", "updates", "evaluations"):
        table.add_column(name, justify="left" if name == "cell" else "right")
    forecasts = estimate_all(plans)
    for name, plan in plans.items():
        figures: tuple[str | Text, ...] = ("", "", "")
        if expected := forecasts[name]:
            updates = Text(f"{expected.updates:,}", "" if expected.updates else "bold red")
            figures = (duration(expected.update_s), updates, duration(2 * expected.evaluate_s))
        fits = "fits" if plan.fits else Text("does not fit", "bold red")
        table.add_row(name, fits, duration(plan.config.budget.seconds), *figures)
    seconds = [plans[cell.name].config.budget.seconds for cell in grid.cells]
    total, longest = sum(seconds), max(sum(seconds[number::lanes]) for number in range(lanes))
    first = next(iter(plans.values()))
    way, where = "one after another", first.machine.name
    if lanes > 1:
        way, where = f"{lanes} at a time: {duration(longest)}", f"one {where} each"
    price = first.config.budget.price_per_hour
    cost = "" if price is None else f", {price * lanes * longest / 3600:,.2f} at {price:.2f} an hour"
    said = f"{len(grid.cells)} cells on {where}: {duration(total)} in all, {way}{cost}"
    return Group(_fitness(plans, forecasts) + Text(said), Text(), table, Text(_source(plans), style="dim"))


def _fitness(plans: dict[str, Plan], forecasts: dict[str, Estimate | None]) -> Text:
    """Say whether all cells fit, and whether the budget of each is enough for an update."""
    faults = {
        "do not fit": sum(not plan.fits for plan in plans.values()),
        "have too small a budget for one update": len(idle(forecasts)),
    }
    said = "".join(f"{number} of {len(plans)} {fault}. " for fault, number in faults.items() if number)
    return Text(said, "bold red") if said else Text("All fit. ", "bold green")


def _source(plans: dict[str, Plan]) -> str:
    """Say what the times rest on."""
    plan = next(iter(plans.values()))
    measured = f"what was measured here: {plan.calibration.of}" if plan.calibration.of else "rates and sizes alone"
    return f"Times are from {measured}."


def idle(forecasts: dict[str, Estimate | None]) -> list[str]:
    """Return the cells whose budget is too small for an update."""
    return [name for name, expected in forecasts.items() if expected and not expected.updates]
