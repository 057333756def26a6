"""The tables of a sweep's report."""

import os
from statistics import fmean
from urllib.parse import quote

from launch.reporting.comparison import axis_name, by_settings, contrasts, question
from launch.reporting.health import flags
from launch.reporting.history import Run, Sweep
from launch.reporting.run_conclusion import effect, mean_of
from launch.reporting.sweep_conclusion import named, place
from launch.reporting.tables import Cells, Table, settings
from launch.reporting.wording import MISSING, compact, count, level, p_value, points, shorten, span, time

LINE_CHARACTERS = 400


def runs(sweep: Sweep) -> Table:
    """Return the table of all runs. Each name links to the run's report."""
    rows = [
        (
            run.name,
            *(compact(run.settings.get(axis)) for axis in sweep.axes),
            str(run.seed),
            *_result(run),
            f"{time(run.summary.spent_s)} of {time(run.budget_s or 0.0)}" if run.begun else MISSING,
            run.sweep_status.replace("_", " "),
            *((run.benchmarked or MISSING,) if sweep.benchmarks else ()),
        )
        for run in sweep.runs
    ]
    head = ("run", *map(axis_name, sweep.axes), "seed", "final pass@1", "95 %", "rise, points", "95 %", "updates")
    reports = {run.name: run.folder / "report.html" for run in sweep.runs}
    links = {name: quote(os.path.relpath(page, sweep.folder)) for name, page in reports.items() if page.exists()}
    return Table(
        "All runs", (*head, "time", "status", *(("benchmarks",) if sweep.benchmarks else ())), rows, links=links
    )


def _result(run: Run) -> Cells:
    """Return final pass@1 and its rise, each with its interval, and the number of updates."""
    found = effect(run)
    after = found.after if found else mean_of(run.eval.final) if run.eval.final else None
    rise = (points(found.difference.value), span(found.difference.interval)) if found else (MISSING, MISSING)
    return (*level(after), *rise, str(len(run.rows)) if run.begun else MISSING)


def concerns(sweep: Sweep) -> Table:
    rows = []
    for run in (*sweep.bases, *sweep.runs):
        said = [run.summary.reason]
        if run.begun:
            found = [flag for flag in flags(run) if flag.level != "good"]
            said = [f"{flag.title}: {flag.detail}" if flag.level == "bad" else flag.title for flag in found]
        if any(said):
            rows.append((run.name, shorten("; ".join(said), LINE_CHARACTERS)))
    return Table("Warnings by run", ("run", "warnings"), rows)


def shared(sweep: Sweep) -> dict[str, str]:
    """Return the settings and versions that all runs have."""
    known = [settings(run) | run.summary.versions for run in sweep.runs if run.begun]
    first = known[0] if known else {}
    return {name: value for name, value in first.items() if all(of_run.get(name) == value for of_run in known)}


def means(sweep: Sweep) -> Table:
    rows = []
    for repeats in by_settings(sweep) if sweep.axes else ():
        runs = repeats.finished
        effort: Cells = (MISSING,) * 3
        if runs:
            tokens = fmean(sum(row.metrics.get("tokens/generated", 0.0) for row in run.rows) for run in runs)
            updates, spent_s = fmean(len(run.rows) for run in runs), fmean(run.summary.spent_s for run in runs)
            effort = f"{updates:.0f}", count(tokens) if tokens else MISSING, time(spent_s)
        rows.append((*map(compact, repeats.settings.values()), *level(repeats.final), repeats.basis, *effort))
    head = (*map(axis_name, sweep.axes), "final pass@1", "95 %", "from", "updates", "tokens", "time")
    return Table("Means over seeds", head, rows)


def comparisons(sweep: Sweep) -> Table:
    found = contrasts(sweep)
    name = axis_name(str(question(sweep)))
    body = [
        (
            f"{named(each, each.high)} minus {named(each, each.low)}",
            place(each).removeprefix("at "),
            points(each.difference.value),
            span(each.difference.interval),
            p_value(each.difference.p),
            each.basis,
        )
        for each in found
    ]
    return Table(
        f"Final pass@1 of every two values of the {name}", (name, "at", "points", "95 %", "corrected", "from"), body
    )
