"""The tables of a sweep's report."""

from statistics import fmean

from actors.evaluation.statistics import Estimate
from launch.reporting.comparison import (
    Group,
    axis_name,
    best_rates,
    contrasts,
    groups,
    on_probe,
    question,
)
from launch.reporting.health import flags
from launch.reporting.history import LEARNING_RATE, Run, Sweep
from launch.reporting.sweep_verdict import named, place
from launch.reporting.tables import Cells, Table, settings
from launch.reporting.verdict import change
from launch.reporting.wording import MISSING, SPACE, compact, count, p_value, percent, points, shorten, span, time

LINE_CHARACTERS = 400
"""Of what is said of a single run."""


def runs(sweep: Sweep) -> Table:
    """Return every run. The first column is its name."""
    probed = on_probe(sweep)
    rows = tuple(
        (
            run.name,
            *(compact(run.settings.get(axis)) for axis in sweep.axes),
            str(run.seed),
            *_result(run),
            points(run.entropy_change(probed)),
            _time(run) if run.begun else MISSING,
            run.cell_status.replace("_", " "),
        )
        for run in sweep.runs
    )
    head = ("run", *map(axis_name, sweep.axes), "seed", "final pass@1", "95 %", "rise, points", "95 %", "updates")
    return Table("All runs", (*head, "entropy, %", "time", "status"), rows)


def _result(run: Run) -> Cells:
    """Return final pass@1 and its rise, each with its interval, and the number of updates."""
    updates = str(len(run.rows)) if run.begun else MISSING
    if found := change(run):
        levels = [(percent(found.after.value), found.after), (points(found.difference.value), found.difference)]
        return (*(text for value, of in levels for text in (value, span(of.interval))), updates)
    level, interval = (run.final.pass_at_1, run.final.ci95) if run.final else (None, None)
    return percent(level), span(interval), MISSING, MISSING, updates


def _time(run: Run) -> str:
    """Say what a run has spent of its budget."""
    spent = time(run.summary.spent_s)
    if not run.budget_s:
        return spent
    budget = time(run.budget_s)
    number, _, unit = spent.partition(SPACE)
    return f"{number if budget.endswith(f'{SPACE}{unit}') else spent} of {budget}"


def concerns(sweep: Sweep) -> Table | None:
    """Return a line for every run that is not well."""
    rows = []
    for run in sweep.runs:
        said = [run.reason]
        if run.begun:
            found = [flag for flag in flags(run) if flag.level != "good"]
            said = [f"{flag.title}: {flag.detail}" if flag.level == "bad" else flag.title for flag in found]
        if any(said):
            rows.append((run.name, shorten("; ".join(said), LINE_CHARACTERS)))
    return Table("What to know of single runs", ("run", "flags"), tuple(rows)) if rows else None


def shared(sweep: Sweep) -> list[tuple[str, str]]:
    """Return the settings and versions that all runs have."""
    known = [[*settings(run), *run.summary.versions.items()] for run in sweep.runs if run.begun]
    return [each for each in known[0] if all(each in of_run for of_run in known)] if known else []


def means(sweep: Sweep) -> Table | None:
    """Return the means over seeds for every combination of settings."""
    if not sweep.axes:
        return None
    probed = on_probe(sweep)
    rows = tuple(
        (
            *map(compact, group.settings.values()),
            *_mean(group),
            *_effort(group),
            _entropy(group.entropy(probed)),
        )
        for group in groups(sweep)
    )
    effort = ("updates", "tokens", "time")
    head = (*map(axis_name, sweep.axes), "final pass@1", "95 %", "from", *effort, "entropy, %")
    return Table("Means over seeds", head, rows)


def _effort(group: Group) -> Cells:
    """Return mean updates, training tokens generated for them, and seconds of the finished runs."""
    if not group.runs:
        return (MISSING,) * 3
    tokens = fmean(sum(row.metrics.get("tokens/generated", 0.0) for row in run.rows) for run in group.runs)
    updates, spent_s = (
        fmean(values) for values in zip(*((len(r.rows), r.summary.spent_s) for r in group.runs), strict=True)
    )
    return f"{updates:.0f}", count(tokens) if tokens else MISSING, time(spent_s)


def _mean(group: Group) -> Cells:
    final = group.final
    return percent(final.value if final else None), span(final.interval if final else None), group.basis


def _entropy(mean: Estimate | None) -> str:
    if mean is None:
        return MISSING
    return points(mean.value) + (f" ({span(mean.interval)})" if mean.interval else "")


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


def best_rate_table(sweep: Sweep) -> Table | None:
    """Return the best learning rate of every value of the axis in question."""
    axis = question(sweep)
    if axis is None or axis == LEARNING_RATE or LEARNING_RATE not in sweep.axes:
        return None
    keys = (*(key for key in sweep.axes if key not in (axis, LEARNING_RATE)), axis, LEARNING_RATE)
    rows = tuple(
        (*(compact(best.settings[key]) for key in keys), *_mean(best))
        for alike in best_rates(sweep, axis)
        for best in alike
    )
    head = (*map(axis_name, keys[:-1]), "best learning rate", "final pass@1", "95 %", "from")
    return Table(f"Best learning rate of each {axis_name(axis)}", head, rows) if rows else None
