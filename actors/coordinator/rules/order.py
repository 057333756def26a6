"""The order of the problems, and the place that a run has reached in it."""

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from actors.coordinator.rules.mixture import place
from actors.messages import Problem


def problem_at(problems: Sequence[Problem], seed: int, index: int) -> Problem:
    """Return the problem at an index of a source's endless stream, in which every epoch has its own permutation."""
    epoch, position = divmod(index, len(problems))
    return problems[_permutation(len(problems), seed, epoch)[position]]


@lru_cache(maxsize=32)
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


class Mixture:
    """The streams of all sources, of which each has its weight in any stretch of indices, see `mixture.place`."""

    def __init__(self, problems: Sequence[Problem], weights: Mapping[str, float], seed: int) -> None:
        """weights: by the sources' names; the only source has an empty one."""
        self._weights, self._seed = tuple(weights.values()), seed
        self._own = [[problem for problem in problems if problem.source == name] for name in weights]

    def at(self, index: int) -> Problem:
        """Return the problem of a group."""
        source, number = place(self._weights, index)
        return problem_at(self._own[source], self._seed, number)
