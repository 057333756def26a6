"""The pool of engines, with frail ones under virtual time, and the slots for adapters."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microbudget_rl.actors.messages import AdapterRef, Group
from microbudget_rl.actors.protocols import Engine
from microbudget_rl.actors.rollout.pool import AdapterSlots, EnginePool
from microbudget_rl.actors.storage.documents import EventKind
from tests.fakes import FrailEngine, make_request
from tests.virtual_time import VirtualClock, virtually

V0, V1, V2, _, V4 = VERSIONS = [AdapterRef(version, 0, "nowhere") for version in range(5)]


class Pool(EnginePool):
    """events: what the pool has recorded, as `event: detail`; kinds: the events alone."""

    def __init__(self, *engines: FrailEngine) -> None:
        self.events: list[str] = []
        self.engines = engines
        super().__init__(engines, 2, VirtualClock(), self._record)

    def _record(self, name: str, kind: EventKind, detail: str) -> None:
        self.events.append(f"{name} {kind}: {detail}")

    @property
    def kinds(self) -> list[str]:
        return [event.partition(":")[0] for event in self.events]

    @property
    def held(self) -> list[frozenset[str]]:
        return [engine.slots.loaded_names for engine in self.engines]

    def ask(self, index: int, adapter: AdapterRef | None = V0) -> "asyncio.Task[Group]":
        return asyncio.create_task(self.generate(make_request(index, adapter)))


@virtually
async def test_groups_of_failed_engine_are_requested_again():
    engine = FrailEngine(seconds=10.0)
    pool = Pool(engine)
    await pool.load(V0)
    early = pool.ask(0, V0)
    await pool.load(V1)
    late = pool.ask(1, V1)
    await asyncio.sleep(3.0)
    engine.die()
    groups = [await early, await late]
    assert engine.lives == 2
    assert pool.held == [{V0.name, V1.name}]
    assert [(group.index, group.version) for group in groups] == [(0, 0), (1, 1)]
    assert engine.served == [(0, V0.name), (1, V1.name)]
    assert pool.kinds == ["rollout-0 died", "rollout-0 restarted"]
    assert "signal 9" in pool.events[0]
    assert "5.0 s, 2 requests" in pool.events[1]


@virtually
async def test_other_engines_serve_during_long_restart():
    """Versions come and go meanwhile; once it is back, it has what the others have."""
    lost, other = FrailEngine(start_seconds=0.0), FrailEngine(start_seconds=0.0)
    lost.restart_seconds = 1000.0
    pool = Pool(lost, other)
    await pool.load(V0)
    lost.die()
    await asyncio.gather(*map(pool.ask, range(4)))
    assert VirtualClock().now() == pytest.approx(1.0, abs=0.01)
    assert (len(lost.served), len(other.served)) == (0, 4)
    for old, new in pairwise(VERSIONS):
        await pool.load(new)
        await pool.retire(old)
    groups = await pool.generate_on_each(make_request(9, V4))
    passed = VirtualClock().now()
    await pool.ready()
    await asyncio.sleep(10.0)
    assert passed < 100.0
    assert [(group.index, group.version) for group in groups] == [(9, 4), (9, 4)]
    assert pool.held == [{V4.name}, {V4.name}]
    assert lost.lives == 2


@pytest.mark.parametrize("missed", [False, True])
@virtually
async def test_version_retired_during_restart_is_harmless(missed: bool):
    """One that its predecessor had, or one that came while it was away, and it dies again: the folder is gone then."""
    engine = FrailEngine()
    pool = Pool(engine, FrailEngine())
    if not missed:
        await pool.load(V1)
    engine.load_seconds = 100.0
    engine.die()
    await pool.ask(0, None if missed else V1)
    if missed:
        await pool.load(V1)
    await asyncio.sleep(10.0)
    if missed:
        engine.die()
        await asyncio.sleep(0.1)
    await pool.load(V2)
    await pool.retire(V1)
    engine.gone.add(V1.name)
    await asyncio.sleep(300.0)
    assert pool.kinds == ["rollout-0 died"] * (1 + missed) + ["rollout-0 restarted"]
    assert pool.held == [{V2.name}, {V2.name}]


@virtually
async def test_error_in_restart_ends_last_engine():
    engines = [FrailEngine(name="rollout-0"), FrailEngine(name="rollout-1")]
    pool = Pool(*engines)
    await pool.load(V0)
    for engine in engines:
        engine.gone.add(V0.name)
    engines[0].die()
    await pool.ask(0)
    await asyncio.sleep(60.0)
    assert pool.kinds == ["rollout-0 died", "rollout-0 not restarted"]
    assert "no folder of policy-v0-r0" in pool.events[1]
    engines[1].die()
    for work in (pool.ask(1), pool.load(V1)):
        with pytest.raises(FileNotFoundError):
            await work
    assert pool.kinds[2:] == ["rollout-1 died", "rollout-1 not restarted"]


async def try_synthetic(_: str, engine: Engine) -> None:
    adapters = [AdapterRef(version, 0, "nowhere") for version in (-1, -2)]
    for adapter in adapters:
        await engine.load(adapter)
    for adapter in adapters:
        await engine.retire(adapter)


@virtually
async def test_start_work_precedes_all_versions():
    engines = [FrailEngine(), FrailEngine()]
    pool = Pool(*engines)
    begun: list[tuple[int, int, bool]] = []

    async def begin(name: str, engine: Engine) -> None:
        assert isinstance(engine, FrailEngine)
        begun.append((engines.index(engine), engine.lives, bool(engine.slots.loaded_names)))
        await try_synthetic(name, engine)

    await pool.at_start(begin)
    await pool.load(V0)
    group = pool.ask(0)
    await asyncio.sleep(0.5)
    engines[0].die()
    await group
    await pool.retire(V0)
    await pool.ready()
    assert begun == [(0, 1, False), (1, 1, False), (0, 2, False)]


@settings(max_examples=200)
@given(st.data())
@virtually
async def test_no_schedule_of_failures_loses_groups(data: st.DataObject):
    """Versions come and go as in a run, engines die at any time: each group is served once, by its version."""
    engines = [FrailEngine(seconds=data.draw(st.floats(0.1, 9.0))) for _ in range(data.draw(st.integers(1, 3)))]
    pool = Pool(*engines)

    async def kill(engine: FrailEngine, after: float) -> None:
        await asyncio.sleep(after)
        engine.die()

    kills = [
        asyncio.create_task(kill(engine, 100.0 * number + data.draw(st.floats(0.0, 60.0))))
        for engine in engines
        for number in range(data.draw(st.integers(0, 2)))
    ]
    await pool.at_start(try_synthetic)
    asked: list[tuple[AdapterRef, asyncio.Task[Group]]] = []
    for adapter in VERSIONS:
        await pool.load(adapter)
        if adapter.version:
            await pool.retire(VERSIONS[adapter.version - 1])
        for _ in range(data.draw(st.integers(0, 4))):
            asked.append((adapter, pool.ask(len(asked), adapter)))
        await asyncio.sleep(data.draw(st.floats(0.0, 30.0)))
    for index, (adapter, task) in enumerate(asked):
        group = await task
        assert (group.index, group.adapter) == (index, adapter)
    await pool.retire(V4)
    await asyncio.gather(*kills)
    await pool.ready()
    assert pool.held == [frozenset()] * len(engines)
    assert [slot.load for slot in pool._slots] == [0] * len(engines)


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
async def test_slot_is_free_although_nobody_waits_for_the_drop_any_more(waiting: str):
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
    assert (task.cancelled(), slots.loaded_names) == (True, {V0.name})
    async with asyncio.timeout(60.0):
        await slots.occupy(V1)
    assert (slots.loaded_names, slots.dropped) == ({V1.name}, [V0.name])


@virtually
async def test_drop_that_fails_frees_the_slot_and_its_error_is_raised_once():
    async def fail(_: AdapterRef) -> None:
        await asyncio.sleep(0.01)
        raise RuntimeError("no such adapter")

    slots = AdapterSlots(1, fail)
    await slots.occupy(V0)
    with pytest.raises(RuntimeError):
        await slots.retire(V0)
    await slots.occupy(V1)
    slots.give_up(V1)  # nobody waits for this one
    with pytest.raises(RuntimeError):
        await slots.occupy(V2)
    await slots.occupy(V2)
    assert slots.loaded_names == {V2.name}


@virtually
async def test_name_is_held_once():
    slots, elsewhere = Slots(2), AdapterRef(0, 0, "elsewhere")
    await slots.occupy(V0)
    with pytest.raises(ValueError, match="loaded already"):
        await slots.occupy(elsewhere)
    async with slots.request(elsewhere):
        pass
    await slots.retire(elsewhere)
    assert slots.dropped == [V0.name]
