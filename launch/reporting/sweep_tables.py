"""The tables of a sweep's report."""

import os
from statistics import fmean
from urllib.parse import quote

from launch.reporting.comparison import Repeats, axis_name, by_settings, contrasts, question
from launch.reporting.health import flags
from launch.reporting.history import Run, Sweep
from launch.reporting.run_conclusion import change
from launch.reporting.sweep_conclusion import named, place
from launch.reporting.tables import Cells, Table, settings
from launch.reporting.wording import MISSING, SPACE, compact, count, p_value, percent, points, shorten, span, time

LINE_CHARACTERS = 400
"""Most characters about a single run."""


def runs(sweep: Sweep) -> Table:
    """Return every run. The first column is its name, linked to its own report."""
    rows = tuple(
        (
            run.name,
            *(compact(run.settings.get(axis)) for axis in sweep.axes),
            str(run.seed),
            *_result(run),
            _time(run) if run.begun else MISSING,
            run.cell_status.replace("_", " "),
        )
        for run in sweep.runs
    )
    head = ("run", *map(axis_name, sweep.axes), "seed", "final pass@1", "95 %", "rise, points", "95 %", "updates")
    reports = {run.name: run.folder / "report.html" for run in sweep.runs}
    links = {name: quote(os.path.relpath(page, sweep.folder)) for name, page in reports.items() if page.exists()}
    return Table("All runs", (*head, "time", "status"), rows, links=links)


def _result(run: Run) -> Cells:
    """Return final pass@1 and its rise, each with its interval, and the number of updates."""
    updates = str(len(run.rows)) if run.begun else MISSING
    if found := change(run):
        levels = [(percent(found.after.value), found.after), (points(found.difference.value), found.difference)]
        return (*(text for value, of in levels for text in (value, span(of.interval))), updates)
    final = run.final or {}
    return percent(final.get("pass@1")), span(final.get("ci95")), MISSING, MISSING, updates


def _time(run: Run) -> str:
    """Return the spent part of a run's budget."""
    spent = time(run.spent_s)
    if not run.budget_s:
        return spent
    budget = time(run.budget_s)
    number, _, unit = spent.partition(SPACE)
    return f"{number if budget.endswith(f'{SPACE}{unit}') else spent} of {budget}"


def concerns(sweep: Sweep) -> Table | None:
    """Return a line for every run that has trouble."""
    rows = []
    for run in sweep.runs:
        said = [run.reason]
        if run.begun:
            found = [flag for flag in flags(run) if flag.level != "good"]
            said = [f"{flag.title}: {flag.detail}" if flag.level == "bad" else flag.title for flag in found]
        if any(said):
            rows.append((run.name, shorten("; ".join(said), LINE_CHARACTERS)))
    return Table("Warnings by run", ("run", "warnings"), tuple(rows)) if rows else None


def shared(sweep: Sweep) -> list[tuple[str, str]]:
    """Return the settings and versions that all runs have."""
    known = [[*settings(run), *run.versions.items()] for run in sweep.runs if run.begun]
    return [each for each in known[0] if all(each in of_run for of_run in known)] if known else []


def means(sweep: Sweep) -> Table | None:
    """Return the means over seeds for every combination of settings."""
    if not sweep.axes:
        return None
    rows = []
    for repeats in by_settings(sweep):
        final = repeats.final
        mean = percent(final.value if final else None), span(final.interval if final else None), repeats.basis
        rows.append((*map(compact, repeats.settings.values()), *mean, *_effort(repeats)))
    head = (*map(axis_name, sweep.axes), "final pass@1", "95 %", "from", "updates", "tokens", "time")
    return Table("Means over seeds", head, tuple(rows))


def _effort(repeats: Repeats) -> Cells:
    """Return mean updates, training tokens generated for them, and seconds of the finished runs."""
    runs = repeats.finished
    if not runs:
        return (MISSING,) * 3
    tokens = fmean(sum(row.get("tokens/generated", 0.0) for row in run.rows) for run in runs)
    updates, spent_s = fmean(len(run.rows) for run in runs), fmean(run.spent_s for run in runs)
    return f"{updates:.0f}", count(tokens) if tokens else MISSING, time(spent_s)


def comparisons(sweep: Sweep) -> Table | None:
    """Compare every two values of the axis in question."""
    found = contrasts(sweep)
    name = axis_name(str(question(sweep)))
    columns = {
        name: [f"{named(each, each.high)} less {named(each, each.low)}" for each in found],
        "at": [place(each).removeprefix("at ") for each in found],
        "points": [points(each.difference.value) for each in found],
        "95 %": [span(each.difference.interval) for each in found],
        "p, corrected": [_p(each.difference.p) for each in found],
        "from": [each.basis for each in found],
    }
    shown = {head: column for head, column in columns.items() if head != "at" or any(column)}
    body = tuple(zip(*shown.values(), strict=True))
    return Table(f"Final pass@1 of every two values of the {name}", tuple(shown), body) if found else None


def _p(p: float | None) -> str:
    return MISSING if p is None else p_value(p).removeprefix("= ")
