"""The conclusion of a sweep in words: does the rank, or another setting, matter, and how certain is that?"""

from collections.abc import Iterator
from itertools import combinations
from statistics import fmean
from typing import Any

from conf.schema.reward import weighs_answers
from launch.reporting.comparison import (
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
from launch.reporting.history import LEARNING_RATE, RANK, Sweep
from launch.reporting.wording import SPACE, compact, decimal, many, p_value, span, time

ALPHA = "lora.alpha"

UNEQUAL = 1.2
"""Ratio of mean numbers of updates above which a caveat names them."""


def conclude(sweep: Sweep) -> str:
    """Answer the question of a sweep in a sentence or two.

    It ignores comparisons at best learning rates, because the same evaluation picks these rates.
    """
    axis = question(sweep)
    found = [contrast for contrast in contrasts(sweep) if not contrast.best]
    results = len(sweep.finished)
    have = f"{results} of {many(len(sweep.runs), 'run')} {'has' if results == 1 else 'have'} a final evaluation"
    if axis is None:
        return f"These runs only differ in the seed; {have}."
    name = axis_name(axis)
    if judged := sum(not weighs_answers(run.config) for run in sweep.finished):
        return (
            f"No conclusion: the reward of {many(judged, 'run')} weighs no answer, so that pass@1 says nothing; {have}."
        )
    if not found:
        return f"No conclusion: no two values of the {name} can be compared; {have}."
    everywhere = {place(each) for each in found}
    shown = {place(each) for each in found if each.difference.shown}
    lead = f"{name.capitalize()} matters here{' in part' if shown < everywhere else ''}"
    if not shown:
        lead = f"No effect of the {name} can be shown here"
    if all(each.of_one_seed for each in found):
        lead = "Undecided (one seed)"
    return " ".join([f"{lead}: {sentence(clearest(found))}.", *_unfinished(sweep, axis)])


def clearest(found: list[Contrast]) -> Contrast:
    """Return the contrast to quote: first a shown one, then one over several seeds, then the smallest p-value, then the
    largest difference.
    """

    def order(each: Contrast) -> tuple[bool, bool, float, float]:
        difference = each.difference
        p = 1.0 if difference.p is None else difference.p
        return not difference.shown, each.of_one_seed, p, -abs(difference.value)

    return min(found, key=order)


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
    made: dict[Any, list[int]] = {}
    for run in runs:
        made.setdefault(run.settings.get(axis), []).append(len(run.rows))
    updates = {value: fmean(counts) for value, counts in made.items()}
    if updates and max(updates.values()) > UNEQUAL * min(updates.values()):
        means = ", ".join(f"{count:.0f} ({compact(value)})" for value, count in updates.items())
        yield f"Mean updates differ by {axis_name(axis)}, {means}: runs with more may have learned more just for that."
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
    return (
        "The same evaluation picks the best learning rate, which makes its mean and comparisons look too good."
        f"{beyond if ends else ''}"
    )
