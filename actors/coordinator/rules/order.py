"""The order of the problems, and the place that a run has reached in it."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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


class Mixture:
    """The streams of all sources, of which each has its weight in any stretch of indices (see `mixture.place`), and the
    places in them that were drawn by chance: a pure state machine.

    A draw passes each place of its stream once, so that none is drawn twice. No problem has two groups under way while
    another of its source has none, and so on. A dropped group is under way until `close`, since the moment of a drop
    depends on the machine's speed.

    reached: by source, the first place that has not been passed. drawn: the places of the groups under way, by index.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        weights: Mapping[str, float],
        seed: int,
        reached: Sequence[int] = (),
        drawn: Iterable[Sequence[int]] = (),
    ) -> None:
        """weights: by the sources' names; the only source has an empty one. drawn: pairs of index and place."""
        self.reached = [*reached] or [0] * len(weights)
        self.drawn = {pair[0]: pair[1] for pair in drawn}
        self._weights, self._seed = tuple(weights.values()), seed
        self._own = [[problem for problem in problems if problem.source == name] for name in weights]

    def at(self, index: int) -> Problem:
        """Return the problem of a group in the order of the streams."""
        source, number = place(self._weights, index)
        return problem_at(self._own[source], self._seed, number)

    def draw(self, index: int, chance: Callable[[str], float]) -> Problem:
        """Return the problem of a group: the one drawn before, or the next that its chance takes, by its id."""
        source = self._source(index)
        own, reached = self._own[source], self.reached[source]
        if index not in self.drawn:
            places = [passed for other, passed in self.drawn.items() if self._source(other) == source]
            under_way = Counter(problem_at(own, self._seed, passed).id for passed in places)
            while not (
                under_way[name := problem_at(own, self._seed, reached).id] <= len(places) // len(own)
                and random.Random(f"{self._seed}/adaptive/{reached}").random() < chance(name)
            ):
                reached += 1
            self.drawn[index], self.reached[source] = reached, reached + 1
        return problem_at(own, self._seed, self.drawn[index])

    def close(self, done: Callable[[int], bool]) -> None:
        """Forget the groups that are done, as told by their index."""
        self.drawn = {index: passed for index, passed in self.drawn.items() if not done(index)}

    def _source(self, index: int) -> int:
        return place(self._weights, index)[0]
