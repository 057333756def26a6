"""Remembers what the groups of each problem have earned, and foretells whether its next group will have variance."""

from collections.abc import Collection, Iterable
from functools import cached_property
from heapq import nlargest, nsmallest
from math import exp, fsum, lgamma
from operator import attrgetter
from statistics import fmean

from actors.messages import Group
from actors.storage.state import GroupResult, PassRateRow

FLOOR = 0.1
"""Smallest chance of a problem, so that solved and hopeless ones return, and no other is drawn ten times as often."""

MOST_GROUPS = 2
"""Number of groups whose tries a problem's rate weighs at most, so that it follows the policy."""

KEPT = 0.995
"""Fraction of that weight that is left after an update: a half after 138, about an epoch of 2,000 problems."""

LEAST_WEIGHT, MOST_WEIGHT = 0.2, 20.0
"""Smallest and largest weight of the prior, tries: nearly all problems solved or hopeless, or all alike."""

IMAGINED = (0.5 - 8**-0.5, 0.5 + 8**-0.5)
"""Rates of two problems that count beside the known ones. Alone they give the prior Beta(1/2, 1/2)."""

CLASSES = {"never solved": 0.05, "seldom": 0.25, "at the edge": 0.75, "often": 0.95, "always solved": 1.0}
"""Classes of pass rates in a histogram, with the upper bound of each."""

MOVERS = 10
"""Number of problems that moved most, each way."""


class PassRates:
    """The memory of pass rates: a pure state machine, which changes only when a batch is consumed.

    A problem's rate is the mean over its groups. Earlier tries weigh as much as MOST_GROUPS groups at most, and less
    with every version. rows: what is known, by the id of the problem. noted: the groups that `advance` will count.
    """

    def __init__(
        self,
        samples: int,
        by_accuracy: bool = True,
        version: int = 0,
        rows: Iterable[PassRateRow] = (),
        noted: Iterable[GroupResult] = (),
    ) -> None:
        """samples: number in a group. by_accuracy: see `successes`. version: the one that `rows` is about."""
        self.rows = {row.problem: row.model_copy(update={"prompt": ""}) for row in rows}
        self.noted = list(noted)
        self._samples, self._by_accuracy, self._version = samples, by_accuracy, version

    def note(self, group: Group) -> None:
        """Remember a group that was used or dropped until the batch is consumed. Masked samples are no tries."""
        if tries := sum(not reward.masked for reward in group.rewards):
            won = successes(group, self._by_accuracy)
            self.noted.append(GroupResult(index=group.index, problem=group.problem.id, tries=tries, successes=won))

    def advance(self, version: int) -> None:
        """Count the noted groups, in the order of their indices. version: the one that their batch has made."""
        self._version = version
        for result in sorted(self.noted, key=lambda result: result.index):
            rate = result.successes / result.tries
            before = self.rows.get(result.problem)
            if before:
                weight = self._weight(before)
                rate = (weight * before.rate + result.successes) / (weight + result.tries)
            self.rows[result.problem] = PassRateRow(
                problem=result.problem,
                tries=result.tries + (before.tries if before else 0),
                rate=min(rate, 1.0),  # rounding
                first=before.first if before else rate,
                version=version,
            )
        self.noted = []
        self.__dict__.pop("_prior", None)

    def chance(self, problem: str) -> float:
        """Return the probability that a problem's next group has right and wrong samples, or FLOOR if that is more."""
        right, wrong = self._prior
        if row := self.rows.get(problem):
            weight = self._weight(row)
            right, wrong = right + weight * row.rate, wrong + weight * (1 - row.rate)
        return max(mixed(right, wrong, self._samples), FLOOR)

    def _weight(self, row: PassRateRow) -> float:
        """Return the number of tries that a row is worth by now."""
        return min(row.tries, MOST_GROUPS * self._samples) * KEPT ** (self._version - row.version)

    @cached_property
    def _prior(self) -> tuple[float, float]:
        """The Beta distribution of the rates of all problems, by the moments of the known ones. The variance between
        rates is more than that of their problems by the noise of the tries, p (1 − p) / tries.
        """
        rows, number = self.rows.values(), len(self.rows) + len(IMAGINED)
        mean = fsum((*(row.rate for row in rows), *IMAGINED)) / number
        square = fsum((*(row.rate**2 for row in rows), *(rate**2 for rate in IMAGINED))) / number
        noise = fsum(1 / min(row.tries, MOST_GROUPS * self._samples) for row in rows) / number
        whole = mean * (1 - mean)
        between = max((square - mean**2 - noise * whole) / (1 - noise), whole / (1 + MOST_WEIGHT))
        weight = max(whole / between - 1, LEAST_WEIGHT)
        return weight * mean, weight * (1 - mean)


def mixed(right: float, wrong: float, samples: int) -> float:
    """Return the probability that samples are neither all right nor all wrong, where their rate is distributed as
    Beta(right, wrong): 1 − B(right + n, wrong) / B(right, wrong) − B(right, wrong + n) / B(right, wrong).
    """
    both = lgamma(right + wrong) - lgamma(right + wrong + samples)
    alike = (exp(lgamma(part + samples) - lgamma(part) + both) for part in (right, wrong))
    return min(max(1 - sum(alike), 0.0), 1.0)


def successes(group: Group, by_accuracy: bool) -> int:
    """Return the number of a group's right samples; where the reward is not by accuracy alone, of those with more than
    the mean reward, so that a group counts as solved in part if its rewards differ.
    """
    rewards = [reward for reward in group.rewards if not reward.masked]
    if by_accuracy:
        return sum(reward.parts["accuracy"] == 1.0 for reward in rewards)
    mean = fmean(reward.total for reward in rewards)
    return 0 if group.zero_variance else sum(reward.total > mean for reward in rewards)


def histogram(rates: Iterable[float]) -> dict[str, int]:
    """Return the number of rates in each of CLASSES."""
    found = dict.fromkeys(CLASSES, 0)
    for rate in rates:
        found[next(name for name, most in CLASSES.items() if rate <= most)] += 1
    return found


def moved(rows: Collection[PassRateRow]) -> list[PassRateRow]:
    """Return the problems that moved most, from the largest rise to the largest fall."""
    risen, fallen = (most(MOVERS, rows, key=attrgetter("change")) for most in (nlargest, nsmallest))
    return [row for row in risen if row.change > 0] + [row for row in reversed(fallen) if row.change < 0]
