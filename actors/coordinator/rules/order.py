"""The order of the problems, and the place that a run has reached in it."""

import random
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm

from microbudget_rl.actors.messages import Problem


def problem_at(problems: Sequence[Problem], seed: int, index: int) -> Problem:
    """Return the problem at an index of a source's endless stream, in which every epoch has its own permutation."""
    epoch, position = divmod(index, len(problems))
    return problems[_permutation(len(problems), seed, epoch)[position]]


@lru_cache(maxsize=32)
def _permutation(size: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(random.Random(f"{seed}/{epoch}").sample(range(size), size))


class DataCursor:
    """The used and dropped groups, which no resume repeats. next_unused: the first unused index. used: later ones."""

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


def place(weights: tuple[float, ...], index: int) -> tuple[int, int]:
    """Return the number of the source that an index belongs to, and which of this source's own indices it is.

    weights: above 0; their sum is of no account. The result depends on the arguments alone. It is the chairman
    assignment of R. Tijdeman (Discrete Mathematics 32, 1980): of the first t indices, a source with share w of n
    sources has t · w, to 1 − 1 / (2n − 2). Of any stretch of L it has L · w, to twice that.
    """
    shares, counts, placed = _begun(weights)
    rounds, index = divmod(index, sum(shares))  # the order repeats
    while len(placed) <= index:
        source = _next(shares, counts, len(placed) + 1)
        placed.append((source, counts[source]))
        counts[source] += 1
    source, number = placed[index]
    return source, number + rounds * shares[source]


@lru_cache(maxsize=4)
def _begun(weights: tuple[float, ...]) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Return the weights as whole numbers, and the counts and places so far, which `place` adds to."""
    exact = [Fraction(repr(weight)) for weight in weights]
    scale = lcm(*(fraction.denominator for fraction in exact))
    return [int(fraction * scale) for fraction in exact], [0] * len(weights), []


def _next(shares: Sequence[int], counts: Sequence[int], now: int) -> int:
    """Return the next source: of those behind their share, the one that would first be too far behind if it waited."""
    total, slack = sum(shares), max(2 * len(shares) - 2, 1)
    lags = [slack * (share * now - count * total) for share, count in zip(shares, counts, strict=True)]
    due = [source for source, lag in enumerate(lags) if lag >= total]
    return min(due, key=lambda source: Fraction((slack - 1) * total - lags[source], shares[source]))


class Mixture:
    """The streams of all sources, of which each has its weight in any stretch of indices, see `place`."""

    def __init__(self, problems: Sequence[Problem], weights: Mapping[str, float], seed: int) -> None:
        """weights: by the sources' names; the only source has an empty one."""
        self._weights, self._seed = tuple(weights.values()), seed
        self._by_source = [[problem for problem in problems if problem.source == name] for name in weights]

    def at(self, index: int) -> Problem:
        """Return the problem of a group."""
        source, number = place(self._weights, index)
        return problem_at(self._by_source[source], self._seed, number)
