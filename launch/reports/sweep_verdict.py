"""The verdict on a sweep: does the rank, or whatever differs, matter, and how sure is that? In words."""

from statistics import fmean
from typing import Any

from launch.reports.comparison import (
    Contrast,
    Group,
    axis_name,
    contrasts,
    finished,
    groups,
    learning_rate,
    question,
    trials_of,
)
from launch.reports.health import cut
from launch.reports.history import LEARNING_RATE, RANK, Run, Sweep
from launch.reports.wording import compact, decimal, many, p_value, span, time

ALPHA = "lora.alpha"

FEW = 20
"""Updates below which a run has hardly begun to learn."""

UNEQUAL = 1.2
"""Times as many updates that are worth a word."""


def verdict(sweep: Sweep) -> str:
    """Answer the question of a sweep in a sentence or two.

    What is compared at the best learning rate is left out, since that is picked by the same evaluation.
    """
    axis = question(sweep)
    found = [contrast for contrast in contrasts(sweep) if not contrast.best]
    results = len(sweep.finished)
    have = f"{results} of {many(len(sweep.runs), 'run')} {'has' if results == 1 else 'have'} a final evaluation"
    if axis is None:
        return f"Nothing differs between these runs but the seed; {have}."
    name = axis_name(axis)
    if not found:
        return f"No verdict: no two values of the {name} can be compared yet; {have}."
    shown: dict[str, bool] = {}
    for contrast in found:
        shown[place(contrast)] = shown.get(place(contrast), False) or contrast.difference.shown
    lead = f"{name.capitalize()} matters here"
    if not any(shown.values()):
        lead = f"No effect of the {name} can be shown here"
    elif not all(shown.values()):
        lead = f"{name.capitalize()} matters here in part"
    quoted = clearest(found)
    if quoted.difference.shown and quoted.of_one_seed:
        lead += ", as far as one seed each can tell"
    return " ".join([f"{lead}: {sentence(quoted)}.", *_lost(sweep, axis)])


def clearest(found: list[Contrast]) -> Contrast:
    """Return what is shown before what is not, what several seeds say before what one does, then the least likely to be
    chance, then the largest.
    """

    def order(each: Contrast) -> tuple[bool, bool, float, float]:
        difference = each.difference
        p = 1.0 if difference.p is None else difference.p
        return not difference.shown, each.of_one_seed, p, -abs(difference.value)

    return min(found, key=order)


def _lost(sweep: Sweep, axis: str) -> list[str]:
    """Say which values of the axis lack some of their runs."""
    parts = []
    for value in sweep.axes[axis]:
        lost = [run for run in sweep.unfinished if run.settings.get(axis) == value]
        if lost:
            ends = ", ".join(dict.fromkeys(map(_status, lost)))
            runs = sum(run.settings.get(axis) == value for run in sweep.runs)
            parts.append(f"{len(lost)} of {many(runs, 'run')} of {axis_name(axis)} {compact(value)} ({ends})")
    return [f"Without a final evaluation, and so left out: {', '.join(parts)}."] if parts else []


def _status(run: Run) -> str:
    return run.cell_status.replace("_", " ")


def best_rate_sentences(sweep: Sweep) -> list[str]:
    """Return the clearest comparison of values at the best learning rate of each, if there is one."""
    best = [contrast for contrast in contrasts(sweep) if contrast.best]
    return [sentence(clearest(best))] if best else []


def place(contrast: Contrast) -> str:
    """Say where two values are compared."""
    free = (contrast.axis, LEARNING_RATE) if contrast.best else (contrast.axis,)
    settings = {key: value for key, value in contrast.low.settings.items() if key not in free}
    shared = " and ".join(f"{axis_name(axis)} {compact(value)}" for axis, value in settings.items())
    parts = ["each at its best learning rate"] if contrast.best else []
    return ", ".join([*parts, f"at {shared}"] if shared else parts)


def named(contrast: Contrast, group: Group) -> str:
    """Name the value of one side of a comparison."""
    rate = f" ({compact(group.settings[LEARNING_RATE])})" if contrast.best else ""
    return f"{compact(group.settings[contrast.axis])}{rate}"


def sentence(contrast: Contrast) -> str:
    """Put one comparison into words, without a full stop."""
    where, name, difference = place(contrast), axis_name(contrast.axis), contrast.difference
    size = decimal(abs(difference.value) * 100)
    stands = f"{size} points {'above' if difference.value > 0 else 'below'}" if float(size) else "level with"
    sure = [f"95 % interval {span(difference.interval)}"] if difference.interval else []
    if difference.p is not None:
        corrected = f", both for {contrast.family} comparisons together" if contrast.family > 1 else ""
        sure.append(f"p {p_value(difference.p)}{corrected}")
    return (
        f"{where}{', ' if where else ''}{name} {named(contrast, contrast.high)} ends {stands} {name}"
        f" {named(contrast, contrast.low)} ({'; '.join([*sure, contrast.basis])})"
    )


def caveats(sweep: Sweep) -> list[str]:
    """Say what a reader of the verdict has to know."""
    found, sizes = contrasts(sweep), [len(group.values) for group in groups(sweep)]
    notes = []
    if sweep.unfinished:
        names = ", ".join(f"{run.name} ({_status(run)})" for run in sweep.unfinished)
        notes.append(f"Without a final evaluation, and so in no mean: {names}.")
    notes += _unequal(sweep)
    if sweep.others:
        notes.append(f"Setups are numbered combinations of: {', '.join(sweep.others)}.")
    if any(contrast.best for contrast in found):
        notes.append(
            "The best of several learning rates is picked by the same evaluation: its mean is flattered, and so are"
            " comparisons of it."
        )
    notes += [*_at_an_end(sweep, found), *_tuned(sweep)]
    if 1 in sizes:
        notes.append("Where there is one seed, the interval is over problems and says nothing of other seeds.")
    if question(sweep) and max(sizes, default=0) > 1:
        notes.append("Intervals over seeds are Student's; those of differences pool the spread of all values compared.")
    if any(contrast.family > 1 for contrast in found):
        notes.append("p-values (Holm) and intervals of differences (Bonferroni) hold for all comparisons together.")
    return notes


def _at_an_end(sweep: Sweep, found: list[Contrast]) -> list[str]:
    """Say whose best learning rate is the lowest or the highest that was tried."""
    best = {named(each, side): side for each in found if each.best for side in (each.low, each.high)}
    rates = [group.settings[LEARNING_RATE] for group in finished(sweep)] if best else []
    ends = [name for name, side in best.items() if side.settings[LEARNING_RATE] in (min(rates), max(rates))]
    if not ends:
        return []
    axis = axis_name(str(question(sweep)))
    return [f"The best learning rate is at an end of the range for {axis} {', '.join(ends)}: one beyond may be better."]


def _tuned(sweep: Sweep) -> list[str]:
    """Say how learning rates were found, and whose is the lowest or the highest that was tried."""
    if not sweep.trials:
        return []
    ends = []
    for group in finished(sweep):
        tried, rate = {trial["rate"] for trial in trials_of(sweep, group)} - {None}, learning_rate(group)
        if tried and rate in (min(tried), max(tried)):
            ends.append(", ".join(f"{axis_name(axis)} {compact(value)}" for axis, value in group.settings.items()))
    beyond = f" It is at an end of the range for {'; '.join(ends)}: one beyond may be better." if ends else ""
    return [
        "Each setting has a learning rate of its own, picked by accuracy on training samples in shorter runs of another"
        f" seed; the held-out problems had no part in that.{beyond}"
    ]


def _unequal(sweep: Sweep) -> list[str]:
    """Say in what the compared runs were not treated alike."""
    notes = []
    budgets = sorted((budget, run.name) for run in sweep.finished if (budget := run.budget_s))
    if budgets and time(budgets[0][0]) != time(budgets[-1][0]):
        ends = " to ".join(f"{time(budget)} ({name})" for budget, name in (budgets[0], budgets[-1]))
        notes.append(f"Budgets differ, from {ends}: who had more time may have learned more for that alone.")
    if few := [f"{run.name} ({len(run.rows)})" for run in sweep.finished if len(run.rows) < FEW]:
        notes.append(f"Fewer than {FEW} updates, too few for a difference to show: {', '.join(few)}.")
    scales = {
        float(alpha) / int(rank)
        for run in sweep.finished
        if (alpha := run.config.get(ALPHA)) and (rank := run.config.get(RANK))
    }
    if len({run.config.get(RANK) for run in sweep.finished}) > 1 and len(scales) > 1:
        shown = ", ".join(f"{scale:.3g}" for scale in sorted(scales))
        notes.append(
            f"Alpha / rank, the scale of the adapter, differs between ranks ({shown}), which is in their effect."
        )
    axis = question(sweep)
    made: dict[Any, list[int]] = {}
    for run in sweep.finished if axis else ():
        made.setdefault(run.settings.get(str(axis)), []).append(len(run.rows))
    updates = {value: fmean(counts) for value, counts in made.items()}
    if updates and max(updates.values()) > UNEQUAL * min(updates.values()):
        means = ", ".join(f"{count:.0f} ({compact(value)})" for value, count in updates.items())
        notes.append(
            f"Updates differ by the {axis_name(str(axis))}, in the mean {means}: who makes more in the same"
            " time may have learned more for that alone."
        )
    if short := [f"{run.name} ({said})" for run in sweep.finished if (said := cut(run))]:
        notes.append(f"Cut short by the budget, and yet in the means like the others: {', '.join(short)}.")
    names = dict.fromkeys(name for run in sweep.finished for name in run.versions)
    if differing := [name for name in names if len({run.versions.get(name) for run in sweep.finished}) > 1]:
        notes.append(f"Not all runs had the same versions of {', '.join(differing)}.")
    return notes
