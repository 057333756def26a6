import asyncio

import pytest

from actors.messages import AdapterRef
from actors.rollout.adapter_slots import AdapterSlots
from tests.actors.rollout.test_pool import virtually

V0, V1 = (AdapterRef(version, 0, "nowhere") for version in range(2))


class Slots(AdapterSlots):
    """dropped: names, in their order."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots, self._note)
        self.dropped: list[str] = []

    async def _note(self, adapter: AdapterRef) -> None:
        await asyncio.sleep(0.01)
        self.dropped.append(adapter.name)


@pytest.mark.parametrize("waiting", ["request", "retire"])
@virtually
async def test_slot_is_free_although_nobody_waits_for_the_drop_any_more(waiting: str) -> None:
    slots = Slots(1)
    await slots.occupy(V0)

    async def work() -> None:
        if waiting == "retire":
            await slots.retire(V0)
            return
        async with slots.request(V0):
            await slots.retire(V0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), slots.held) == (True, {V0.name})
    async with asyncio.timeout(60.0):
        await slots.occupy(V1)
    assert (slots.held, slots.dropped) == ({V1.name}, [V0.name])


@virtually
async def test_drop_that_fails_frees_the_slot() -> None:
    async def fail(_: AdapterRef) -> None:
        await asyncio.sleep(0.01)
        raise RuntimeError("no such adapter")

    slots = AdapterSlots(1, fail)
    await slots.occupy(V0)
    with pytest.raises(RuntimeError):
        await slots.retire(V0)
    await slots.occupy(V1)
    assert slots.held == {V1.name}


@virtually
async def test_name_is_held_once() -> None:
    slots, elsewhere = Slots(2), AdapterRef(0, 0, "elsewhere")
    await slots.occupy(V0)
    with pytest.raises(ValueError, match="loaded already"):
        await slots.occupy(elsewhere)
    async with slots.request(elsewhere):
        pass
    await slots.retire(elsewhere)
    assert slots.dropped == [V0.name]
