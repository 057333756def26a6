"""Which source of a mixture an index of the endless order belongs to.

The chairman assignment of R. Tijdeman (Discrete Mathematics 32, 1980): of the first t indices, a source with share w
of n sources has t · w, to 1 − 1 / (2n − 2). Of any stretch of L it has L · w, to twice that.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm


def place(weights: tuple[float, ...], index: int) -> tuple[int, int]:
    """Return the number of the source that an index belongs to, and which of this source's own indices it is.

    weights: above 0; their sum is of no account. The result depends on the arguments alone.
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
    scale = lcm(*(each.denominator for each in exact))
    return [int(each * scale) for each in exact], [0] * len(weights), []


def _next(shares: Sequence[int], counts: Sequence[int], now: int) -> int:
    """Return the source whose lag would first be too large, of those that lag enough to be next."""
    total, slack = sum(shares), max(2 * len(shares) - 2, 1)
    lags = [slack * (share * now - count * total) for share, count in zip(shares, counts, strict=True)]
    due = [source for source, lag in enumerate(lags) if lag >= total]
    return min(due, key=lambda source: Fraction((slack - 1) * total - lags[source], shares[source]))
