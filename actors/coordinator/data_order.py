"""The order in which a run meets its problems, and how far it has come."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from actors.messages import Group, Problem


@dataclass(frozen=True)
class ProblemOrder:
    """The endless stream of problems: every epoch is a permutation of its own. Its state is a position, an integer."""

    problems: Sequence[Problem]
    seed: int

    def problem(self, index: int) -> Problem:
        """The problem at a position of the stream, counted from 0."""
        epoch, position = divmod(index, len(self.problems))
        return self.problems[permutation(len(self.problems), self.seed, epoch)[position]]


@lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The order of 0 … size - 1 in one epoch."""
    return tuple(random.Random(f"{seed}/{epoch}").sample(range(size), size))


class DataCursor:
    """Which groups, numbered by admission, are behind the current adapter: what a resumed run must not repeat.

    `used` are the indices beyond `next_unused` that a batch has taken out of order, or that were passed over.
    """

    def __init__(self, next_unused: int = 0, used: tuple[int, ...] = ()) -> None:
        self.next_unused = next_unused
        self._used = set(used)
        self._admitted = next_unused

    @property
    def used(self) -> tuple[int, ...]:
        return tuple(sorted(self._used))

    def admit(self) -> int:
        """Index of the next group to start."""
        self._admitted = max(self._admitted, self.next_unused)
        while self._admitted in self._used:
            self._admitted += 1
        self._admitted += 1
        return self._admitted - 1

    def pass_over(self, index: int) -> None:
        """Count a group that no batch will take as done with."""
        self._used.add(index)
        self._settle()

    def use(self, batch: tuple[Group, ...]) -> None:
        """Count a batch as part of the adapter's history."""
        self._used.update(group.index for group in batch)
        self._settle()

    def _settle(self) -> None:
        while self.next_unused in self._used:
            self._used.remove(self.next_unused)
            self.next_unused += 1
