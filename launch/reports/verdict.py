"""Did it learn? One sentence, and what it rests on."""

from dataclasses import dataclass

from launch.reports.history import Run
from launch.reports.wording import many, percent, plain, points, shorten, span
from rewards.estimate import bootstrap_interval

Interval = tuple[float, float]

REASON_CHARACTERS = 160
"""Of the reason for a run's end in its verdict; the whole of it is among the flags."""


@dataclass(frozen=True)
class Change:
    """Held-out pass@1 before and after, shares in 0–1, with 95 % intervals over problems.

    difference, interval: of the problems that both evaluations judged, each against itself; without their samples the
    interval is None.
    """

    before: float
    after: float
    before_interval: Interval
    after_interval: Interval
    difference: float
    interval: Interval | None
    problems: int

    @property
    def finding(self) -> str:
        """rose, fell or unclear."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "unclear"
        return "rose" if self.difference > 0 else "fell"


def change(run: Run) -> Change | None:
    """None unless both evaluations were made."""
    base, final = run.base, run.final
    if not base or not final:
        return None
    before, after = run.solved
    common = sorted(before.keys() & after.keys())
    differences = [after[problem] - before[problem] for problem in common]
    return Change(
        before=base["pass@1"],
        after=final["pass@1"],
        before_interval=(base["ci95"][0], base["ci95"][1]),
        after_interval=(final["ci95"][0], final["ci95"][1]),
        difference=sum(differences) / len(common) if common else final["pass@1"] - base["pass@1"],
        interval=bootstrap_interval(differences) if common else None,
        problems=len(common) or min(base["problems"], final["problems"]),
    )


def verdict(run: Run, found: Change | None) -> str:
    """The answer in one sentence; says so where there is none. found: `change` of the run."""
    if found is None:
        return f"No verdict: {_missing(run)}."
    levels = f"{percent(found.before)} to {percent(found.after)}"
    by = f"{points(found.difference)} points"
    size = f"{plain(abs(found.difference) * 100)} points"
    if found.interval is None:
        return f"Held-out pass@1 went from {levels}, by {by}; how sure that is cannot be told without the samples."
    interval = f"95 % interval {span(found.interval)}"
    if found.finding == "rose":
        return f"It learned: held-out pass@1 rose from {levels}, by {size} ({interval})."
    if found.finding == "fell":
        return f"It got worse: held-out pass@1 fell from {levels}, by {size} ({interval})."
    return (
        f"No learning can be shown: held-out pass@1 went from {levels}, by {by}, and the {interval} does not exclude"
        f" zero."
    )


def basis(run: Run, found: Change | None) -> str:
    """What the verdict rests on, for the small print below it."""
    if found is None or run.final is None or run.base is None:
        return ""
    draws = [many(evaluation["n"], "sample") for evaluation in (run.base, run.final)]
    each = f"{draws[0]} of each" if draws[0] == draws[1] else f"{draws[0]} of each before and {draws[1]} after"
    return (
        f"{many(found.problems, 'held-out problem')}, {each}, every problem compared with itself. The interval"
        f" is over problems: this is one run with one seed, and another seed may end elsewhere."
    )


def _missing(run: Run) -> str:
    reason = shorten(run.summary.get("reason") or "", REASON_CHARACTERS)
    ended = f"the run {ENDS.get(run.status, run.status)}" + (f" ({reason})" if reason else "")
    if run.base is None:
        return f"the base model was not evaluated; {ended}"
    return f"the trained policy was not evaluated; {ended}"


ENDS = {
    "completed": "is complete",
    "budget_exhausted": "has spent its budget",
    "interrupted": "was interrupted",
    "halted": "halted",
    "failed": "failed",
    "unfinished": "goes on, or has died without a word",
}
"""What a status says of a run."""
