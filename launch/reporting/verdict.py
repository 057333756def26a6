"""The verdict on a run: did it learn? One sentence, and what it rests on."""

from dataclasses import dataclass

from actors.evaluation.statistics import FEWEST, Difference, Estimate, over_problems, paired_difference
from actors.storage.documents import Heldout
from launch.reporting.health import behind
from launch.reporting.history import Run
from launch.reporting.wording import WORDS, decimal, many, percent, points, shorten, span

REASON_CHARACTERS = 160
"""Of the reason for a run's end in its verdict; the whole of it is among the flags."""


@dataclass(frozen=True)
class Change:
    """Held-out pass@1 before and after.

    problems: those of both evaluations; without their samples, the smaller number of the two.
    difference: paired by problem; without the samples, a mere number.
    """

    before: Estimate
    after: Estimate
    problems: int
    difference: Difference

    @property
    def paired(self) -> bool:
        return self.difference.p is not None

    @property
    def finding(self) -> str:
        """rose, fell or unclear."""
        if not self.difference.shown:
            return "unclear"
        return "rose" if self.difference.value > 0 else "fell"


def recorded(evaluation: Heldout) -> Estimate:
    """Return pass@1 of an evaluation as summary.json has it."""
    low, high = evaluation.ci95
    return Estimate(evaluation.pass_at_1, (low, high) if evaluation.problems >= FEWEST else None)


def change(run: Run) -> Change | None:
    """Return how held-out pass@1 has changed; None unless both evaluations were made."""
    base, final = run.base, run.final
    if not base or not final:
        return None
    before, after = run.solved
    difference = paired_difference(before, after)
    if difference is None:
        levels = recorded(base), recorded(final)
        return Change(*levels, min(base.problems, final.problems), Difference(levels[1].value - levels[0].value))
    common = before.keys() & after.keys()
    levels = over_problems(before[name] for name in common), over_problems(after[name] for name in common)
    return Change(*levels, len(common), difference)


def verdict(run: Run, found: Change | None) -> str:
    """Return the verdict in one sentence, or why there is none, and a second one where the run is far behind its plan.

    found: `change` of the run.
    """
    late = f" It made only {said}." if (said := behind(run)) else ""
    return _sentence(run, found) + late


def _sentence(run: Run, found: Change | None) -> str:
    if found is None:
        return f"No verdict: {_missing(run)}."
    difference, interval = found.difference.value, found.difference.interval
    levels = f"{percent(found.before.value)} to {percent(found.after.value)}"
    went = f"held-out pass@1 went from {levels}, by {points(difference)} points"
    if found.difference.p is None:
        return f"{went[0].upper()}{went[1:]}; how sure that is cannot be told without the samples."
    unclear = f"No learning can be shown: {went}"
    if interval is None:
        return f"{unclear}, on {many(found.problems, 'problem')}, too few to tell it from chance."
    sure = f"95 % interval {span(interval)}"
    size = f"{decimal(abs(difference) * 100)} points"
    if found.finding == "rose":
        return f"It learned: held-out pass@1 rose from {levels}, by {size} ({sure})."
    if found.finding == "fell":
        return f"It got worse: held-out pass@1 fell from {levels}, by {size} ({sure})."
    return f"{unclear}, and the {sure} does not exclude zero."


def basis(run: Run, found: Change | None) -> str:
    """Return what the verdict rests on, for the small print below it."""
    if found is None or run.final is None or run.base is None:
        return ""
    draws = [many(evaluation.n, "sample") for evaluation in (run.base, run.final)]
    each = f"{draws[0]} of each" if draws[0] == draws[1] else f"{draws[0]} of each before and {draws[1]} after"
    compared = ", every problem compared with itself" if found.paired else ""
    so = "The interval is over problems: this" if found.difference.interval else "This"
    return (
        f"{many(found.problems, 'held-out problem')}, {each}{compared}. {so} is one run with one seed, and another seed"
        f" may end elsewhere."
    )


def _missing(run: Run) -> str:
    status, reason = run.summary.status, shorten(run.summary.reason, REASON_CHARACTERS)
    ended = f"the run {WORDS['endings'].get(status, status)}" + (f" ({reason})" if reason else "")
    what = "the base model" if run.base is None else "the trained policy"
    return f"{what} was not evaluated; {ended}"
