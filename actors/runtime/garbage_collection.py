"""Python's garbage collector, which searches for cycles of objects that nobody refers to."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MORE = 1_000_000
"""Objects than at the last search before the next one. The groups on their way on 512 cards consist of some 420,000, so
that their coming and going causes no search; so many objects of garbage would take a few hundred megabytes."""


@contextmanager
def rare_collection() -> Iterator[None]:
    """Search rarely, in a process that holds a great many objects and makes hardly any cycle.

    By default Python searches after every 700 new objects, and all of them time and again while they grow in number.
    Of what a group costs the coordinator that is next to nothing on one card, and a third on 512.
    """
    before = gc.get_threshold()
    gc.set_threshold(MORE)
    try:
        yield
    finally:
        gc.set_threshold(*before)
