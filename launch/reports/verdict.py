"""Did it learn? One sentence, and what it rests on."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import lcm
from statistics import fmean

from actors.evaluation.statistics import FEWEST, SIGNIFICANT, bootstrap_interval, share_interval, sign_flip_p
from launch.reports.history import Row, Run
from launch.reports.wording import many, p_value, percent, plain, points, shorten, span

Interval = tuple[float, float]

REASON_CHARACTERS = 160
"""Of the reason for a run's end in its verdict; the whole of it is among the flags."""


@dataclass(frozen=True)
class Paired:
    """The mean difference between two evaluations, problem by problem. interval: 95 %, None for too few problems. p: of
    a sign-flip test.
    """

    problems: int
    difference: float
    interval: Interval | None
    p: float

    @property
    def shown(self) -> bool:
        """Whether both interval and test exclude that there is none."""
        return self.p <= SIGNIFICANT and self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def paired(before: dict[str, float], after: dict[str, float], unit: int) -> Paired | None:
    """Of the problems that both judged; None if there are none. before, after: the solved share of each, in whole
    1 / unit.
    """
    differences = [after[problem] - before[problem] for problem in sorted(before.keys() & after.keys())]
    if not differences:
        return None
    interval = bootstrap_interval(differences) if len(differences) >= FEWEST else None
    p = sign_flip_p([round(difference * unit) for difference in differences])
    return Paired(len(differences), fmean(differences), interval, p)


@dataclass(frozen=True)
class Level:
    """pass@1, a share in 0–1. interval: 95 %, over problems; None for too few of them."""

    value: float
    interval: Interval | None


def level(evaluation: Row) -> Level:
    """Of an evaluation as summary.json has it."""
    low, high = evaluation["ci95"]
    return Level(evaluation["pass@1"], (low, high) if evaluation["problems"] >= FEWEST else None)


def level_of(solved: Iterable[float]) -> Level:
    """Of problems of which a share each is solved."""
    shares = list(solved)
    return Level(fmean(shares), share_interval(shares) if len(shares) >= FEWEST else None)


@dataclass(frozen=True)
class Change:
    """Held-out pass@1 before and after, of the problems that both evaluations judged. paired: None without their
    samples; the levels are then of all problems that each judged.
    """

    before: Level
    after: Level
    problems: int
    paired: Paired | None

    @property
    def difference(self) -> float:
        return self.paired.difference if self.paired else self.after.value - self.before.value

    @property
    def interval(self) -> Interval | None:
        return self.paired.interval if self.paired else None

    @property
    def finding(self) -> str:
        """rose, fell or unclear."""
        if not (self.paired and self.paired.shown):
            return "unclear"
        return "rose" if self.difference > 0 else "fell"


def change(run: Run) -> Change | None:
    """None unless both evaluations were made."""
    base, final = run.base, run.final
    if not base or not final:
        return None
    before, after = run.solved
    found = paired(before, after, lcm(base["n"], final["n"]))
    if found is None:
        return Change(level(base), level(final), min(base["problems"], final["problems"]), None)
    common = before.keys() & after.keys()
    levels = [level_of(solved[problem] for problem in common) for solved in (before, after)]
    return Change(levels[0], levels[1], found.problems, found)


def verdict(run: Run, found: Change | None) -> str:
    """The answer in one sentence; says so where there is none. found: `change` of the run."""
    if found is None:
        return f"No verdict: {_missing(run)}."
    levels = f"{percent(found.before.value)} to {percent(found.after.value)}"
    by = f"{points(found.difference)} points"
    size = f"{plain(abs(found.difference) * 100)} points"
    went = f"held-out pass@1 went from {levels}, by {by}"
    if found.paired is None:
        return f"{went[0].upper()}{went[1:]}; how sure that is cannot be told without the samples."
    if found.interval is None:
        return (
            f"No learning can be shown: {went}, on {many(found.problems, 'problem')}, too few to tell it from chance."
        )
    interval = f"95 % interval {span(found.interval)}"
    if found.finding == "rose":
        return f"It learned: held-out pass@1 rose from {levels}, by {size} ({interval})."
    if found.finding == "fell":
        return f"It got worse: held-out pass@1 fell from {levels}, by {size} ({interval})."
    if found.interval[0] <= 0 <= found.interval[1]:
        return f"No learning can be shown: {went}, and the {interval} does not exclude zero."
    return (
        f"No learning can be shown: {went} ({interval}), but chance alone may do as much ({p_value(found.paired.p)})."
    )


def basis(run: Run, found: Change | None) -> str:
    """What the verdict rests on, for the small print below it."""
    if found is None or run.final is None or run.base is None:
        return ""
    draws = [many(evaluation["n"], "sample") for evaluation in (run.base, run.final)]
    each = f"{draws[0]} of each" if draws[0] == draws[1] else f"{draws[0]} of each before and {draws[1]} after"
    compared = ", every problem compared with itself" if found.paired else ""
    so = "The interval is over problems: this" if found.interval else "This"
    return (
        f"{many(found.problems, 'held-out problem')}, {each}{compared}. {so} is one run with one seed, and another seed"
        f" may end elsewhere."
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
