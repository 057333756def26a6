"""Remembers what the groups of each problem have earned."""

from collections.abc import Collection, Iterable
from heapq import nlargest, nsmallest
from operator import attrgetter
from statistics import fmean

from actors.messages import Group
from actors.storage.state import PassRateRow

MOST_GROUPS = 2
"""Number of groups whose tries a problem's rate weighs at most, so that it follows the policy."""

CLASSES = {"never solved": 0.05, "seldom": 0.25, "at the edge": 0.75, "often": 0.95, "always solved": 1.0}
"""Classes of pass rates in a histogram, with the upper bound of each."""

MOVERS = 10
"""Number of problems that moved most, each way."""


class PassRates:
    """The memory of pass rates.

    A problem's rate is the mean over its groups, in which earlier tries weigh as much as MOST_GROUPS groups at most.
    rows: what is known, by the id of the problem.
    """

    def __init__(self, samples: int, by_accuracy: bool = True, rows: Iterable[PassRateRow] = ()) -> None:
        """samples: number in a group. by_accuracy: see `successes`."""
        self.rows = {row.problem: row.model_copy(update={"prompt": ""}) for row in rows}
        self._samples, self._by_accuracy = samples, by_accuracy

    def count(self, group: Group, version: int) -> None:
        """Count a group that was used or dropped. Masked samples are no tries. version: the policy's by now."""
        tries = sum(not reward.masked for reward in group.rewards)
        if not tries:
            return
        before = self.rows.get(group.problem.id)
        known, rate = (before.tries, before.rate) if before else (0, 0.0)
        weight = min(known, MOST_GROUPS * self._samples)
        rate = (weight * rate + successes(group, self._by_accuracy)) / (weight + tries)
        self.rows[group.problem.id] = PassRateRow(
            problem=group.problem.id,
            tries=known + tries,
            rate=min(rate, 1.0),  # rounding
            first=before.first if before else rate,
            version=version,
        )


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
