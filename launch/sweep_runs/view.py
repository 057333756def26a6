"""What a person sees of a sweep: a line a cell while it goes on, and what came of it."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.formats import duration
from launch.plan.estimate import Estimate
from launch.plan.options import estimate_all
from launch.plan.plan import Plan
from launch.sweep_runs.grid import Grid
from launch.sweep_runs.record import Standing

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}

WORDS = ("cell", "memory", "status")
"""Columns of words, which begin at the left."""


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=name in ("cell", "spent"), justify="left" if name in WORDS else "right")
    return table


def _status(standing: Standing) -> Text:
    return Text(standing.status, STYLE.get(standing.status, ""))


def render(standings: Iterable[Standing], left: float) -> RenderableType:
    """Show every cell in a line, and when the sweep is expected to end. left: seconds."""
    table = _table("cell", "status", "spent", "updates", "accuracy")
    for standing in standings:
        updates, accuracy = standing.latest("update"), standing.latest("reward/accuracy")
        table.add_row(
            standing.cell.name,
            _status(standing),
            f"{standing.spent / standing.budget:.0%} of {duration(standing.budget)}",
            f"{updates:.0f}" if updates else "",
            "" if accuracy is None else f"{accuracy:.2f}",
        )
    end = datetime.now() + timedelta(seconds=left)
    said = f"about {duration(left)} left, until {end:%H:%M}" + (f" on {end:%d %B}" if left > 43200 else "")
    return Group(table, Text(said, style="dim"))


def describe(standing: Standing) -> str:
    """Return how a cell stands in one line of text."""
    words = f"{standing.cell.name}: {standing.status}"
    if spent := standing.spent:
        updates = standing.latest("update") or 0
        words += f", {duration(spent)} of {duration(standing.budget)}, {updates:.0f} updates"
    return words + (f", {standing.reason}" if standing.reason else "")


def results(standings: Iterable[Standing]) -> RenderableType:
    """Show held-out accuracy of every cell, with its interval; means over seeds are in the report."""
    table = _table("cell", "before", "after", "95 % interval", "status")
    table.title = "held-out pass@1"
    for standing in standings:
        base, final = standing.evaluation("base"), standing.evaluation("final")
        figures = ("", "", "")
        if base and final:
            figures = (f"{base.pass_at_1:.3f}", f"{final.pass_at_1:.3f}", "{:.3f}–{:.3f}".format(*final.ci95))
        table.add_row(standing.cell.name, *figures, _status(standing))
    return table


def render_plans(grid: Grid, plans: dict[str, Plan], lanes: int) -> RenderableType:
    """Show what every cell would be on its lane's part of the machine, and the whole in hours."""
    table = _table("cell", "memory", "budget", "an update", "updates", "evaluations")
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
    source = f"what was measured here: {first.calibration.of}" if first.calibration.of else "rates and sizes alone"
    return Group(_fitness(plans, forecasts) + Text(said), Text(), table, Text(f"Times are from {source}.", style="dim"))


def _fitness(plans: dict[str, Plan], forecasts: dict[str, Estimate | None]) -> Text:
    """Say whether all cells fit, and whether the budget of each is enough for an update."""
    faults = {
        "do not fit": sum(not plan.fits for plan in plans.values()),
        "have too small a budget for one update": len(idle(forecasts)),
    }
    said = "".join(f"{number} of {len(plans)} {fault}. " for fault, number in faults.items() if number)
    return Text(said, "bold red") if said else Text("All fit. ", "bold green")


def idle(forecasts: dict[str, Estimate | None]) -> list[str]:
    """Return the cells whose budget is too small for an update."""
    return [name for name, expected in forecasts.items() if expected and not expected.updates]
