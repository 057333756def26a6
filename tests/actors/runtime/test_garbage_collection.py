import gc
import weakref
from typing import Any

import pytest

from actors.runtime import garbage_collection
from actors.runtime.garbage_collection import rare_collection


class Ring:
    def __init__(self) -> None:
        self.itself = self


def searches(objects: int) -> int:
    """How often Python looks for cycles while so many objects come into being."""
    begun: list[bool] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        begun.append(phase == "start")

    gc.collect()
    gc.callbacks.append(note)
    try:
        held = [[number] for number in range(objects)]
    finally:
        gc.callbacks.remove(note)
    assert len(held) == objects
    return sum(begun)


def test_many_objects_are_not_searched() -> None:
    assert searches(50_000) > 0
    with rare_collection():
        assert searches(50_000) == 0
    assert searches(50_000) > 0


def test_garbage_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_collection, "MORE", 10_000)
    with rare_collection():
        gc.collect()
        gone = weakref.ref(Ring())
        assert gone() is not None
        assert searches(20_000) > 0
    assert gone() is None
