import pytest

from actors.rollout.adapter_slots import AdapterSlots


def test_third_version_has_to_wait_for_a_free_slot() -> None:
    slots = AdapterSlots(2)
    slots.occupy("v0")
    slots.occupy("v1")
    with pytest.raises(ValueError, match="no free slot for adapter v2: v0, v1 are in use"):
        slots.occupy("v2")


def test_retired_version_leaves_with_its_last_request() -> None:
    slots = AdapterSlots(2)
    slots.occupy("v0")
    slots.begin("v0")
    slots.begin("v0")
    assert not slots.retire("v0")
    assert not slots.end("v0")
    assert slots.end("v0")
    slots.vacate("v0")
    assert slots.free == 2


def test_idle_version_leaves_when_retired() -> None:
    slots = AdapterSlots(1)
    slots.occupy("v0")
    assert slots.retire("v0")


def test_retired_version_takes_no_request() -> None:
    slots = AdapterSlots(1)
    slots.occupy("v0")
    slots.begin("v0")
    slots.retire("v0")
    with pytest.raises(ValueError, match="v0 is not served"):
        slots.begin("v0")


def test_version_in_use_cannot_be_vacated() -> None:
    slots = AdapterSlots(1)
    slots.occupy("v0")
    slots.begin("v0")
    slots.retire("v0")
    with pytest.raises(ValueError, match="still in use"):
        slots.vacate("v0")


def test_name_is_held_once() -> None:
    slots = AdapterSlots(2)
    slots.occupy("v0")
    with pytest.raises(ValueError, match="loaded already"):
        slots.occupy("v0")
