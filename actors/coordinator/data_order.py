"""The order in which a run meets its problems, and how far it has come."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from actors.messages import Group, Problem


@dataclass(frozen=True)
class ProblemOrder:
    """The endless stream of problems, in which every epoch is a permutation of its own. Positions count from 0."""

    problems: Sequence[Problem]
    seed: int

    def problem(self, index: int) -> Problem:
        """Return the problem at a position of the stream."""
        order = permutation(len(self.problems), self.seed, self.epoch(index))
        return self.problems[order[index % len(self.problems)]]

    def epoch(self, index: int) -> int:
        """Return the epoch of a position, from 0."""
        return index // len(self.problems)


@lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the order of 0 … size - 1 in one epoch."""
    return tuple(random.Random(f"{seed}/{epoch}").sample(range(size), size))


class DataCursor:
    """Which groups, numbered by admission, are behind the current adapter: a resumed run must not repeat them.

    next_unused: the first index that is not. used: later ones that a batch has taken or that were passed over.
    """

    def __init__(self, next_unused: int = 0, used: Iterable[int] = ()) -> None:
        self.next_unused = next_unused
        self._used = set(used)
        self._admitted = next_unused

    @property
    def used(self) -> tuple[int, ...]:
        return tuple(sorted(self._used))

    def admit(self) -> int:
        """Return the index of the next group to start."""
        self._admitted = max(self._admitted, self.next_unused)
        while self._admitted in self._used:
            self._admitted += 1
        self._admitted += 1
        return self._admitted - 1

    def pass_over(self, index: int) -> None:
        """Count a group that no batch will take as done with."""
        self._mark({index})

    def use(self, batch: tuple[Group, ...]) -> None:
        """Count a batch as part of the adapter's history."""
        self._mark({group.index for group in batch})

    def _mark(self, indices: set[int]) -> None:
        self._used |= indices
        while self.next_unused in self._used:
            self._used.remove(self.next_unused)
            self.next_unused += 1
