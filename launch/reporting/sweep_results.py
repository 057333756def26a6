"""The results of a sweep: tables, and the conclusion: does the rank, or another setting, matter, and how sure is it?"""

import os
from collections.abc import Iterator
from itertools import combinations
from statistics import fmean
from urllib.parse import quote

from microbudget_rl.actors.evaluation.statistics import means as means_of
from microbudget_rl.actors.results import Results
from microbudget_rl.conf.schema.reward import weighs_answers
from microbudget_rl.launch.reporting.comparison import (
    Contrast,
    Repeats,
    axis_name,
    by_settings,
    comparable,
    contrasts,
    finished,
    question,
    seeds_to_decide,
)
from microbudget_rl.launch.reporting.health import flags
from microbudget_rl.launch.reporting.history import LEARNING_RATE, RANK, Sweep
from microbudget_rl.launch.reporting.run_conclusion import effect, mean_of
from microbudget_rl.launch.reporting.tables import Cells, Table, settings
from microbudget_rl.launch.reporting.wording import (
    MISSING,
    SPACE,
    compact,
    decimal,
    level,
    many,
    p_value,
    points,
    shorten,
    span,
    time,
)

LINE_CHARACTERS = 400

ALPHA = "lora.alpha"

UNEQUAL = 1.2
"""Ratio of mean numbers of updates above which a caveat names them."""


def conclude(sweep: Sweep) -> str:
    """Answer the question of a sweep, without comparisons at best learning rates, which the same evaluation picks."""
    axis, compared = question(sweep), [contrast for contrast in contrasts(sweep) if not contrast.best]
    have = f"{len(sweep.finished)} of {many(len(sweep.runs), 'run')} with a final evaluation"
    if axis is None:
        return f"These runs only differ in the seed; {have}."
    name = axis_name(axis)
    if other := sum(not weighs_answers(run.config) for run in sweep.finished):
        return (
            f"No conclusion: the reward of {many(other, 'run')} weighs no answer, so that pass@1 says nothing; {have}."
        )
    if not compared:
        return f"No conclusion: no two values of the {name} can be compared; {have}."
    everywhere = {place(each) for each in compared}
    shown = {place(each) for each in compared if each.difference.shown}
    lead = f"{name.capitalize()} matters here{' in part' if shown < everywhere else ''}"
    if not shown:
        lead = f"No effect of the {name} can be shown here"
    if all(each.of_one_seed for each in compared):
        lead = "Undecided (one seed)"
    return " ".join([f"{lead}: {sentence(clearest(compared))}.", *_unfinished(sweep, axis)])


def clearest(candidates: list[Contrast]) -> Contrast:
    """Return the contrast to quote: a shown one, else over several seeds, with the smallest p or largest difference."""

    def order(each: Contrast) -> tuple[bool, bool, float, float]:
        difference = each.difference
        return (
            not difference.shown,
            each.of_one_seed,
            1.0 if difference.p is None else difference.p,
            -abs(difference.value),
        )

    return min(candidates, key=order)


def _unfinished(sweep: Sweep, axis: str) -> list[str]:
    """Name the values of the axis with unfinished runs."""
    parts = []
    for value in sweep.axes[axis]:
        runs = [run for run in sweep.runs if run.settings.get(axis) == value]
        if lost := [run for run in runs if not run.eval.final]:
            ends = ", ".join(dict.fromkeys(run.sweep_status.replace("_", " ") for run in lost))
            parts.append(f"{len(lost)} of {many(len(runs), 'run')} of {axis_name(axis)} {compact(value)} ({ends})")
    return [f"Without a final evaluation, and so in no mean: {', '.join(parts)}."] if parts else []


def place(contrast: Contrast) -> str:
    """Name the other settings at which two values are compared."""
    free = (contrast.axis, LEARNING_RATE) if contrast.best else (contrast.axis,)
    settings = {key: value for key, value in contrast.low.settings.items() if key not in free}
    shared = " and ".join(f"{axis_name(axis)} {compact(value)}" for axis, value in settings.items())
    parts = ["each at its best learning rate"] if contrast.best else []
    return ", ".join([*parts, f"at {shared}"] if shared else parts)


def named(contrast: Contrast, side: Repeats) -> str:
    """Name the value of one side of a comparison."""
    rate = f" ({compact(side.settings[LEARNING_RATE])})" if contrast.best else ""
    return f"{compact(side.settings[contrast.axis])}{rate}"


def sentence(contrast: Contrast) -> str:
    """Put one comparison into words, without a full stop."""
    where, name, difference = place(contrast), axis_name(contrast.axis), contrast.difference
    size = decimal(abs(difference.value) * 100)
    stands = f"{size} points {'above' if difference.value > 0 else 'below'}" if float(size) else "level with"
    sure = [f"95{SPACE}% interval {span(difference.interval)}"] if difference.interval else []
    if difference.p is not None:
        corrected = f", both for {contrast.family} comparisons together" if contrast.family > 1 else ""
        sure.append(f"{p_value(difference.p)}{corrected}")
    needed = [seeds_to_decide(abs(difference.value), contrast.family)] if contrast.of_one_seed else []
    return (
        f"{where}{', ' if where else ''}{name} {named(contrast, contrast.high)} ends {stands} {name}"
        f" {named(contrast, contrast.low)} ({'; '.join([*sure, contrast.basis, *needed])})"
    )


def caveats(sweep: Sweep) -> list[str]:
    """Return the clearest comparison at best rates, and the notes that qualify the conclusion."""
    best = [contrast for contrast in contrasts(sweep) if contrast.best]
    notes = [f"Also {sentence(clearest(best))}.", _picked(sweep, best)] if best else []
    notes += _unequal(sweep)
    if 1 in [len(repeats.values) for repeats in by_settings(sweep)]:
        notes.append("The interval of a mean of one seed is over problems and says nothing about other seeds.")
    return notes


def _unequal(sweep: Sweep) -> Iterator[str]:
    """Report differences between the runs in held-out problems, budget, number of updates and scale of the adapter."""
    runs, axis = sweep.finished, str(question(sweep))
    if not all(comparable(*pair) for pair in combinations(finished(sweep), 2)):
        yield "Runs evaluated on different problems are not compared. data.eval_source gives all runs the same ones."
    budgets = sorted((budget, run.name) for run in runs if (budget := run.budget_s))
    if budgets and time(budgets[0][0]) != time(budgets[-1][0]):
        ends = " to ".join(f"{time(budget)} ({name})" for budget, name in (budgets[0], budgets[-1]))
        yield f"Budgets differ, from {ends}: runs with more time may have learned more for that reason alone."
    updates = means_of((run.settings.get(axis), len(run.rows)) for run in runs)
    if updates and max(updates.values()) > UNEQUAL * min(updates.values()):
        counts = ", ".join(f"{count:.0f} ({compact(value)})" for value, count in updates.items())
        yield f"Mean updates differ by {axis_name(axis)}, {counts}: runs with more may have learned more just for that."
    known = [(rank, run.config.get(ALPHA)) for run in runs if (rank := run.config.get(RANK))]
    scales = sorted({float(alpha) / int(rank) for rank, alpha in known if alpha})
    if len({rank for rank, _ in known}) > 1 and len(scales) > 1:
        shown = ", ".join(f"{scale:.3g}" for scale in scales)
        yield f"Alpha / rank, the scale of the adapter, differs between ranks too ({shown}): part of the effect."


def _picked(sweep: Sweep, best: list[Contrast]) -> str:
    """Say that the same evaluation picks the best learning rates, and name those at an end of the range."""
    sides = {named(each, side): side for each in best for side in (each.low, each.high)}
    rates = [repeats.settings[LEARNING_RATE] for repeats in finished(sweep)]
    ends = [name for name, side in sides.items() if side.settings[LEARNING_RATE] in (min(rates), max(rates))]
    beyond = f" At an end of the range: {axis_name(best[0].axis)} {', '.join(ends)}; a rate beyond may be better."
    said = "The same evaluation picks the best learning rate, which makes its mean and comparisons look too good."
    return f"{said}{beyond if ends else ''}"


def runs(sweep: Sweep) -> Table:
    """Return the table of all runs. Each name links to the run's report."""
    rows = [
        (
            run.name,
            *(compact(run.settings.get(axis)) for axis in sweep.axes),
            str(run.seed),
            *_levels(run),
            str(len(run.rows)) if run.begun else MISSING,
            f"{time(run.summary.spent_s)} of {time(run.budget_s or 0.0)}" if run.begun else MISSING,
            run.sweep_status.replace("_", " "),
            *((run.benchmarked or MISSING,) if sweep.benchmarks else ()),
        )
        for run in sweep.runs
    ]
    head = ("run", *map(axis_name, sweep.axes), "seed", "final pass@1", "95 %", "rise, points", "95 %", "updates")
    reports = {run.name: run.folder / "report.html" for run in sweep.runs}
    links = {name: quote(os.path.relpath(page, sweep.folder)) for name, page in reports.items() if page.exists()}
    more = ("time", "status", "benchmarks") if sweep.benchmarks else ("time", "status")
    return Table("All runs", (*head, *more), rows, links=links)


def _levels(run: Results) -> Cells:
    """Return final pass@1 and its rise, each with its interval."""
    if change := effect(run):
        return (*level(change.after), points(change.difference.value), span(change.difference.interval))
    return (*level(mean_of(run.eval.final) if run.eval.final else None), MISSING, MISSING)


def concerns(sweep: Sweep) -> Table:
    rows = []
    for run in (*sweep.bases, *sweep.runs):
        said = [run.summary.reason]
        if run.begun:
            raised = [flag for flag in flags(run) if flag.level != "good"]
            said = [f"{flag.title}: {flag.detail}" if flag.level == "bad" else flag.title for flag in raised]
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
        effort: Cells = (MISSING, MISSING)
        if runs:
            effort = f"{fmean(len(run.rows) for run in runs):.0f}", time(fmean(run.summary.spent_s for run in runs))
        rows.append((*map(compact, repeats.settings.values()), *level(repeats.final), repeats.basis, *effort))
    head = (*map(axis_name, sweep.axes), "final pass@1", "95 %", "from", "updates", "time")
    return Table("Means over seeds", head, rows)


def comparisons(sweep: Sweep) -> Table:
    compared = contrasts(sweep)
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
        for each in compared
    ]
    return Table(
        f"Final pass@1 of every two values of the {name}", (name, "at", "points", "95 %", "corrected", "from"), body
    )
