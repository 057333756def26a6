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
        self.dropped.append(adapter.name)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    return lambda: asyncio.run(test())


@in_a_loop
async def test_third_version_waits_for_a_free_slot() -> None:
    slots = Slots(2)
    await slots.occupy(V0)
    await slots.occupy(V1)
    third = asyncio.create_task(slots.occupy(V2))
    await asyncio.sleep(0)
    assert not third.done()
    await slots.retire(V0)
    await third
    assert slots.held == {V1.name, V2.name}


@in_a_loop
async def test_retired_version_leaves_with_its_last_request() -> None:
    slots = Slots(2)
    await slots.occupy(V0)
    async with slots.request(V0):
        async with slots.request(V0):
            await slots.retire(V0)
        assert slots.in_use == (V0,)
        assert slots.dropped == []
    assert slots.in_use == ()
    assert slots.dropped == [V0.name]
    assert slots.held == frozenset()


@in_a_loop
async def test_failed_request_has_ended() -> None:
    slots = Slots(1)
    await slots.occupy(V0)
    with pytest.raises(RuntimeError):
        async with slots.request(V0):
            raise RuntimeError
    await slots.retire(V0)
    assert slots.dropped == [V0.name]


@in_a_loop
async def test_version_keeps_its_slot_until_it_is_dropped() -> None:
    slots = Slots(1)
    await slots.occupy(V0)
    slots._drop = lambda adapter: asyncio.sleep(0.01)
    retired, loaded = asyncio.create_task(slots.retire(V0)), asyncio.create_task(slots.occupy(V1))
    await asyncio.sleep(0)
    assert (slots.in_use, slots.held) == ((), {V0.name})
    await asyncio.gather(retired, loaded)
    assert slots.in_use == (V1,)


@in_a_loop
async def test_retired_version_takes_no_request() -> None:
    slots = Slots(1)
    await slots.occupy(V0)
    async with slots.request(V0):
        await slots.retire(V0)
        with pytest.raises(ValueError, match="policy-v0-r0 is not served"):
            async with slots.request(V0):
                raise AssertionError


@in_a_loop
async def test_base_model_needs_no_slot() -> None:
    async with Slots(1).request(None):
        pass


@in_a_loop
async def test_name_is_held_once_whatever_its_folder() -> None:
    slots = Slots(2)
    await slots.occupy(V0)
    with pytest.raises(ValueError, match="loaded already"):
        await slots.occupy(AdapterRef(0, 0, "elsewhere"))
    async with slots.request(AdapterRef(0, 0, "elsewhere")):
        pass
    await slots.retire(AdapterRef(0, 0, "elsewhere"))
    assert slots.dropped == [V0.name]
