import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from actors.messages import AdapterRef
from actors.rollout.adapter_slots import AdapterSlots

V0, V1, V2 = (AdapterRef(version, 0, "nowhere") for version in range(3))


class Slots(AdapterSlots):
    """dropped: names, in their order."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots, self._note)
        self.dropped: list[str] = []

    async def _note(self, adapter: AdapterRef) -> None:
        await asyncio.sleep(0.01)
        self.dropped.append(adapter.name)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    return lambda: asyncio.run(test())


@in_a_loop
async def test_third_version_waits_for_slot() -> None:
    slots = Slots(2)
    await slots.occupy(V0)
    await slots.occupy(V1)
    third, retired = asyncio.create_task(slots.occupy(V2)), asyncio.create_task(slots.retire(V0))
    await asyncio.sleep(0.001)
    assert not third.done()
    assert (slots.in_use, slots.held) == ((V1,), {V0.name, V1.name})
    await asyncio.gather(retired, third)
    assert slots.held == {V1.name, V2.name}


@in_a_loop
async def test_retired_version_leaves_with_last_request() -> None:
    slots = Slots(2)
    await slots.occupy(V0)
    async with slots.request(V0):
        await slots.retire(V0)
        with pytest.raises(ValueError, match="policy-v0-r0 is not served"):
            async with slots.request(V0):
                raise AssertionError
        assert (slots.in_use, slots.dropped) == ((V0,), [])
    assert (slots.in_use, slots.dropped, slots.held) == ((), [V0.name], frozenset())


@in_a_loop
async def test_base_model_needs_no_slot() -> None:
    async with Slots(1).request(None):
        pass


@in_a_loop
async def test_name_is_held_once() -> None:
    slots, elsewhere = Slots(2), AdapterRef(0, 0, "elsewhere")
    await slots.occupy(V0)
    with pytest.raises(ValueError, match="loaded already"):
        await slots.occupy(elsewhere)
    async with slots.request(elsewhere):
        pass
    await slots.retire(elsewhere)
    assert slots.dropped == [V0.name]
