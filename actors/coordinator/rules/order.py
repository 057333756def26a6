"""The order of the problems, and the place that a run has reached in it."""

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache

from actors.messages import Problem


def problem_at(problems: Sequence[Problem], seed: int, index: int) -> Problem:
    """Return the problem at an index of the endless stream, in which every epoch has its own permutation."""
    epoch, position = divmod(index, len(problems))
    return problems[_permutation(len(problems), seed, epoch)[position]]


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(random.Random(f"{seed}/{epoch}").sample(range(size), size))


class DataCursor:
    """The indices of used and dropped groups, which a resumed run must not repeat.

    next_unused: the first index that is not used. used: later indices that are.
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

    def use(self, indices: Iterable[int]) -> None:
        """Count groups as taken by a batch, or as dropped."""
        self._used |= set(indices)
        while self.next_unused in self._used:
            self._used.remove(self.next_unused)
            self.next_unused += 1
