"""What a sweep answers: does the rank matter, and how sure is that? In words."""

from statistics import fmean
from typing import Any

from launch.reports.comparison import LEARNING_RATE, Contrast, Group, axis_name, contrasts, groups, question
from launch.reports.health import cut
from launch.reports.history import Sweep
from launch.reports.wording import figure, many, p_value, plain, span, time


def answer(sweep: Sweep) -> str:
    """The question of a sweep, answered in a sentence or two. What is compared at the best learning rate is left out:
    that is picked by the same evaluation.
    """
    axis = question(sweep)
    found = [contrast for contrast in contrasts(sweep) if not contrast.best]
    results = sum(len(group.done) for group in groups(sweep))
    have = f"{results} of {many(len(sweep.cells), 'run')} {'has' if results == 1 else 'have'} a final evaluation"
    if axis is None:
        return f"Nothing differs between these runs but the seed; {have}."
    name = axis_name(axis)
    if not found:
        return f"No verdict: no two values of the {name} can be compared yet; {have}."
    places = {tuple(contrast.shared.items()): False for contrast in found}
    for contrast in found:
        places[tuple(contrast.shared.items())] |= contrast.shown
    lead = f"{name.capitalize()} matters here"
    if not any(places.values()):
        lead = f"No effect of the {name} can be shown here"
    elif not all(places.values()):
        lead = f"{name.capitalize()} matters here in part"
    quoted = clearest(found)
    if quoted.shown and quoted.of_one_seed:
        lead += ", as far as one seed each can tell"
    return " ".join([f"{lead}: {sentence(quoted)}.", *_lost(sweep, axis)])


def clearest(found: list[Contrast]) -> Contrast:
    """What is shown before what is not, over several seeds before one; then what is least likely to be chance, and of
    several such the largest.
    """

    def rank(each: Contrast) -> tuple[bool, bool, float, float]:
        return not each.shown, each.of_one_seed, 1.0 if each.p is None else each.p, -abs(each.difference)

    return min(found, key=rank)


def _lost(sweep: Sweep, axis: str) -> list[str]:
    """Which values of the axis are judged by those of their runs that got to the end."""
    parts = []
    for value in sweep.axes[axis]:
        cells = [cell for cell in sweep.cells if cell.settings[axis] == value]
        lost = [cell for cell in cells if not (cell.run and cell.run.final)]
        if lost:
            ends = ", ".join(dict.fromkeys(cell.status.replace("_", " ") for cell in lost))
            parts.append(f"{len(lost)} of {many(len(cells), 'run')} of {axis_name(axis)} {figure(value)} ({ends})")
    return [f"Without a final evaluation, and so left out: {', '.join(parts)}."] if parts else []


def sentences(sweep: Sweep) -> list[str]:
    """What else a reader looks for: the clearest comparison at the best learning rate of each."""
    best = [contrast for contrast in contrasts(sweep) if contrast.best]
    return [sentence(clearest(best))] if best else []


def place(contrast: Contrast) -> str:
    """Where two values are compared, in words."""
    shared = " and ".join(f"{axis_name(axis)} {figure(value)}" for axis, value in contrast.shared.items())
    parts = ["each at its best learning rate"] if contrast.best else []
    return ", ".join([*parts, f"at {shared}"] if shared else parts)


def named(contrast: Contrast, group: Group) -> str:
    """The value of one side of a comparison."""
    rate = f" ({figure(group.settings[LEARNING_RATE])})" if contrast.best else ""
    return f"{figure(group.settings[contrast.axis])}{rate}"


def certainty(contrast: Contrast) -> str:
    """The p-value in words."""
    if contrast.p is None:
        return ""
    return p_value(contrast.p) + (f", corrected for {contrast.family} comparisons" if contrast.family > 1 else "")


def sentence(contrast: Contrast) -> str:
    """One comparison in words, without a full stop."""
    where, name = place(contrast), axis_name(contrast.axis)
    low, high = named(contrast, contrast.low), named(contrast, contrast.high)
    size = plain(abs(contrast.difference) * 100)
    stands = f"{size} points {'above' if contrast.difference > 0 else 'below'}" if float(size) else "level with"
    interval = f"95 % interval {span(contrast.interval)}" if contrast.interval else ""
    return (
        f"{where}{', ' if where else ''}{name} {high} ends {stands} {name} {low}"
        f" ({'; '.join(filter(None, (interval, certainty(contrast), contrast.basis)))})"
    )


def caveats(sweep: Sweep) -> list[str]:
    """What a reader of the answer has to know."""
    missing = [cell for cell in sweep.cells if not (cell.run and cell.run.final)]
    found = contrasts(sweep)
    notes = []
    if missing:
        names = ", ".join(f"{cell.name} ({cell.status.replace('_', ' ')})" for cell in missing)
        notes.append(f"Without a final evaluation, and so in no mean: {names}.")
    notes += _unequal(sweep)
    if sweep.others:
        notes.append(f"Setups are numbered combinations of: {', '.join(sweep.others)}.")
    if any(contrast.best for contrast in found):
        notes.append(
            "The best of several learning rates is picked by the same evaluation: its mean is flattered, and so are"
            " comparisons of it."
        )
    notes += _at_an_end(sweep, found)
    if any(len(group.values) == 1 for group in groups(sweep)):
        notes.append("Where there is one seed, the interval is over problems and says nothing of other seeds.")
    if question(sweep) and any(len(group.values) > 1 for group in groups(sweep)):
        notes.append("Intervals over seeds are Student's; those of differences pool the spread of all values compared.")
    if any(contrast.family > 1 for contrast in found):
        notes.append("p-values are corrected for the number of comparisons as by Holm; intervals are not.")
    return notes


def _at_an_end(sweep: Sweep, found: list[Contrast]) -> list[str]:
    """Whose best learning rate is the lowest or the highest that was tried."""
    best = {named(each, side): side for each in found if each.best for side in (each.low, each.high)}
    rates = [group.settings[LEARNING_RATE] for group in groups(sweep) if group.final] if best else []
    ends = [name for name, side in best.items() if side.settings[LEARNING_RATE] in (min(rates), max(rates))]
    if not ends:
        return []
    axis = axis_name(str(question(sweep)))
    return [f"The best learning rate is at an end of the range for {axis} {', '.join(ends)}: one beyond may be better."]


UNEQUAL = 1.2
"""Times as many updates that are worth a word."""


def _updates(sweep: Sweep) -> dict[Any, float]:
    """That the finished runs of each value of the axis in question made, in the mean."""
    axis = question(sweep)
    made: dict[Any, list[int]] = {}
    for cell in sweep.cells if axis else ():
        if cell.run and cell.run.final:
            made.setdefault(cell.settings[str(axis)], []).append(len(cell.run.rows))
    return {value: fmean(counts) for value, counts in made.items()}


def _unequal(sweep: Sweep) -> list[str]:
    """Wherein the runs that are compared were not treated alike."""
    done = [(cell.name, cell.run) for cell in sweep.cells if cell.run and cell.run.final]
    notes = []
    budgets = sorted((run.budget_s, name) for name, run in done if run.budget_s)
    if budgets and time(budgets[0][0]) != time(budgets[-1][0]):
        ends = " to ".join(f"{time(budget)} ({name})" for budget, name in (budgets[0], budgets[-1]))
        notes.append(f"Budgets differ, from {ends}: who had more time may have learned more for that alone.")
    updates = _updates(sweep)
    if updates and max(updates.values()) > UNEQUAL * min(updates.values()):
        told = ", ".join(f"{count:.0f} ({figure(value)})" for value, count in updates.items())
        notes.append(
            f"Updates differ by the {axis_name(str(question(sweep)))}, in the mean {told}: who makes more in the same"
            " time may have learned more for that alone."
        )
    if short := [f"{name} ({said})" for name, run in done if (said := cut(run))]:
        notes.append(f"Cut short by the budget, and yet in the means like the others: {', '.join(short)}.")
    versions = [run.summary.get("versions") or {} for _, run in done]
    names = dict.fromkeys(name for of_run in versions for name in of_run)
    if differing := [name for name in names if len({of_run.get(name) for of_run in versions}) > 1]:
        notes.append(f"Not all runs had the same versions of {', '.join(differing)}.")
    return notes
