"""The display of a sweep: its plan, then a table with one row per run."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from actors.formats import duration
from launch.plan.estimate import Estimate
from launch.plan.options import estimate_all
from launch.plan.plan import Plan
from launch.sweep_runs.grid import SweepRun

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}

FAULT = "bold red"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        words = name in ("run", "memory", "status")
        table.add_column(name, no_wrap=name == "run", justify="left" if words else "right")
    return table


def runs_table(runs: Sequence[SweepRun]) -> RenderableType:
    """Return the progress of every run and its held-out accuracy; means over seeds are in the report."""
    table = _table("run", "status", "spent", "updates", "held-out pass@1")
    for run in runs:
        summary = run.record.summary()
        base, final = (summary.eval.base, summary.eval.final) if summary else (None, None)
        change = ""
        if base and final:
            change = "{:.3f} → {:.3f} ({:.3f}–{:.3f})".format(base.pass_at_1, final.pass_at_1, *final.ci95)
        status = Text(run.status, STYLE.get(run.status, ""))
        spent = run.record.spent / run.config.budget.seconds
        table.add_row(run.name, status, f"{spent:.0%}", f"{run.record.updates}", change)
    return table


def plans_table(plans: dict[str, Plan], lanes: int) -> RenderableType:
    """Return the plan of every run on its lane's part of the machine, and the hours of the whole sweep."""
    table = _table("run", "memory", "budget", "per update", "updates", "evaluations")
    forecasts = estimate_all(plans)
    misfits, hopeless = [name for name, plan in plans.items() if not plan.fits], idle(forecasts)
    for name, plan in plans.items():
        figures: tuple[str, ...] = ()
        if expected := forecasts[name]:
            figures = (
                duration(expected.update_s),
                f"{expected.updates:,}",
                duration(expected.evaluations * expected.evaluate_s),
            )
        fits = "does not fit" if name in misfits else "fits"
        style = FAULT if name in (*misfits, *hopeless) else ""
        table.add_row(name, fits, duration(plan.config.budget.seconds), *figures, style=style)
    seconds = [plan.config.budget.seconds for plan in plans.values()]
    total, longest = sum(seconds), max(sum(seconds[number::lanes]) for number in range(lanes))
    way, where = "one after another", next(iter(plans.values())).machine.name
    if lanes > 1:
        way, where = f"{lanes} at a time: {duration(longest)}", f"one {where} each"
    faults = f"{len(misfits)} of {len(plans)} do not fit. " if misfits else ""
    faults += f"{len(hopeless)} of {len(plans)} have too small a budget for one update. " if hopeless else ""
    conclusion = Text(faults or "All fit. ", FAULT if faults else "bold green")
    said = f"{len(plans)} runs on {where}: {duration(total)} in all, {way}"
    measured = dict.fromkeys(plan.calibration.of for plan in plans.values() if plan.calibration.of)
    source = f", corrected by measurements here: {'; '.join(measured)}" if measured else " alone"
    return Group(conclusion + Text(said), Text(), table, Text(f"Times are from rates and sizes{source}.", style="dim"))


def idle(forecasts: dict[str, Estimate | None]) -> list[str]:
    """Return the runs whose budget is too small for an update."""
    return [name for name, expected in forecasts.items() if expected and not expected.updates]
