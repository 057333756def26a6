"""The order of the problems, and the place that a run has reached in it."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial

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

    def done(self, index: int) -> bool:
        """Whether a group is used or dropped."""
        return index < self.next_unused or index in self._used

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


class Walk:
    """Draws the problems of a stream by chance, passing each place once: a pure state machine.

    Every epoch of the stream has each problem once, so that none is drawn twice in an epoch. None is drawn while a
    group of it is under way, unless all are. A dropped group is under way until `close`, since the moment of a drop
    depends on the machine's speed.

    reached: the first place that has not been passed. drawn: the places of the groups under way, by index.
    """

    def __init__(
        self,
        stream: Callable[[int], Problem],
        size: int,
        seed: int,
        reached: int = 0,
        drawn: Iterable[tuple[int, int]] = (),
    ) -> None:
        """stream: returns the problem at a place. size: number of problems in it. drawn: pairs of index and place."""
        self.reached = reached
        self.drawn = dict(drawn)
        self._stream, self._size, self._seed = stream, size, seed

    def draw(self, index: int, chance: Callable[[str], float]) -> Problem:
        """Return the problem of a group: the one drawn before, or the next that its chance takes, by its id."""
        if index not in self.drawn:
            under_way = {self._stream(place).id for place in self.drawn.values()}
            while not self._takes(self._stream(self.reached).id, under_way, chance):
                self.reached += 1
            self.drawn[index] = self.reached
            self.reached += 1
        return self._stream(self.drawn[index])

    def _takes(self, problem: str, under_way: set[str], chance: Callable[[str], float]) -> bool:
        if problem in under_way and len(under_way) < self._size:
            return False
        return random.Random(f"{self._seed}/adaptive/{self.reached}").random() < chance(problem)

    def close(self, done: Callable[[int], bool]) -> None:
        """Forget the groups that are done, as told by their index."""
        self.drawn = {index: place for index, place in self.drawn.items() if not done(index)}


class Mixture:
    """The streams of all sources, of which each has its weight in any stretch of indices: see `mixture.place`."""

    def __init__(
        self,
        problems: Sequence[Problem],
        weights: Mapping[str, float],
        seed: int,
        reached: Sequence[int] = (),
        drawn: Iterable[Sequence[int]] = (),
    ) -> None:
        """weights: by the sources' names; the only source has an empty one. reached, drawn: those of each `Walk`."""
        self._weights, places = tuple(weights.values()), [(index, place) for index, place in drawn]
        own = [[problem for problem in problems if problem.source == name] for name in weights]
        self._streams = [partial(problem_at, each, seed) for each in own]
        self._walks = [
            Walk(stream, len(each), seed, start, [pair for pair in places if self._source(pair[0]) == number])
            for number, (stream, each, start) in enumerate(
                zip(self._streams, own, reached or [0] * len(own), strict=True)
            )
        ]

    @property
    def reached(self) -> list[int]:
        return [walk.reached for walk in self._walks]

    @property
    def drawn(self) -> list[list[int]]:
        return [[index, place] for walk in self._walks for index, place in walk.drawn.items()]

    def at(self, index: int) -> Problem:
        """Return the problem of a group in the order of the streams."""
        source, number = place(self._weights, index)
        return self._streams[source](number)

    def draw(self, index: int, chance: Callable[[str], float]) -> Problem:
        """Return the problem of a group by chance, see `Walk.draw`."""
        return self._walks[self._source(index)].draw(index, chance)

    def close(self, done: Callable[[int], bool]) -> None:
        for walk in self._walks:
            walk.close(done)

    def _source(self, index: int) -> int:
        return place(self._weights, index)[0]
