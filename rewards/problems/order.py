"""In which order a run meets its problems."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from actors.messages import Problem


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
