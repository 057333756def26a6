"""Python's search for cycles of objects that nobody refers to."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MORE = 1_000_000
"""Objects than at the last search. The groups on their way on 512 cards consist of some 420,000, so that their coming
and going causes no search; so many objects that are garbage would take a few hundred megabytes."""


@contextmanager
def seldom_searched() -> Iterator[None]:
    """For a process that holds a great many objects and makes hardly any cycle.

    Python looks whenever there are 700 more objects, and at all of them time and again while they grow in number. Of
    what a group costs the coordinator that is hardly anything on one card, and a third on 512.
    """
    before = gc.get_threshold()
    gc.set_threshold(MORE)
    try:
        yield
    finally:
        gc.set_threshold(*before)
