import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import ActorDied
from actors.messages import AdapterRef, Group, Sampling
from actors.protocols import Engine
from actors.rollout.pool import EnginePool
from actors.runtime.supervision import DEATHS_IN_A_ROW
from tests.fakes import FrailEngine, make_problem
from tests.virtual_time import VirtualClock, run_virtually

SAMPLING = Sampling(samples=4, max_tokens=8, temperature=1.0, top_p=1.0, seed=0)
ADAPTER = AdapterRef(0, 0, "nowhere")


def ignore(*_: object) -> None: ...


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in virtual time."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        run_virtually(test(**given))

    return run


@virtually
async def test_groups_go_to_the_engine_with_the_least_to_do() -> None:
    slow, quick = FrailEngine(seconds=10.0), FrailEngine(seconds=1.0)
    pool = EnginePool([slow, quick], VirtualClock(), ignore)
    await pool.load(ADAPTER)
    first = [asyncio.create_task(pool.generate(i, make_problem(i), ADAPTER, SAMPLING)) for i in range(2)]
    await asyncio.sleep(2.0)
    await asyncio.gather(*first[1:], *(pool.generate(i, make_problem(i), ADAPTER, SAMPLING) for i in (2,)))
    await asyncio.gather(*first)
    assert [len(slow.served), len(quick.served)] == [1, 2]


@virtually
async def test_every_engine_holds_every_version() -> None:
    engines = [FrailEngine(), FrailEngine()]
    pool = EnginePool(engines, VirtualClock(), ignore)
    await pool.load(ADAPTER)
    await pool.load(AdapterRef(1, 0, "nowhere"))
    await pool.retire(ADAPTER)
    assert [engine.slots.held for engine in engines] == [frozenset({"policy-v1-r0"})] * 2


@virtually
async def test_failed_request_no_longer_counts_as_load() -> None:
    engines = [FrailEngine(), FrailEngine()]
    pool = EnginePool(engines, VirtualClock(), ignore)
    for engine in engines[1:]:
        await engine.load(ADAPTER)
    for _ in range(2):
        failed = await asyncio.gather(pool.generate(0, make_problem(0), ADAPTER, SAMPLING), return_exceptions=True)
        assert isinstance(failed[0], ValueError)
    assert [slot.load for slot in pool._slots] == [0, 0]


def ask(pool: EnginePool, index: int, adapter: AdapterRef | None = ADAPTER) -> "asyncio.Task[Group]":
    return asyncio.create_task(pool.generate(index, make_problem(index), adapter, SAMPLING))


@virtually
async def test_groups_of_a_dead_engine_are_asked_for_again_under_the_versions_it_had() -> None:
    engine, events = FrailEngine(seconds=10.0), list[str]()
    pool = EnginePool([engine], VirtualClock(), lambda name, kind, detail: events.append(f"{name} {kind}: {detail}"))
    old, new = ADAPTER, AdapterRef(1, 0, "nowhere")
    await pool.load(old)
    early = ask(pool, 0, old)
    await pool.load(new)
    late = ask(pool, 1, new)
    await asyncio.sleep(3.0)
    engine.die()
    groups = [await early, await late]
    assert engine.lives == 2
    assert engine.slots.held == {"policy-v0-r0", "policy-v1-r0"}
    assert [(group.index, group.version) for group in groups] == [(0, 0), (1, 1)]
    assert engine.served == [(0, "policy-v0-r0"), (1, "policy-v1-r0")]
    assert [event.partition(":")[0] for event in events] == ["rollout-0 died", "rollout-0 restarted"]
    assert "signal 9" in events[0]
    assert "5.0 s, 2 requests" in events[1]


@virtually
async def test_run_goes_on_without_an_engine_that_finds_no_place() -> None:
    """Versions come and go meanwhile; once it is back, it has what the others have."""
    lost, other = FrailEngine(start_seconds=1000.0), FrailEngine()
    pool = EnginePool([lost, other], VirtualClock(), ignore)
    await pool.load(ADAPTER)
    lost.die()
    await asyncio.gather(*(ask(pool, index) for index in range(4)))
    assert (VirtualClock().now(), len(lost.served), len(other.served)) == (1.0, 0, 4)
    for version in range(1, 5):
        await pool.load(AdapterRef(version, 0, "nowhere"))
        await pool.retire(AdapterRef(version - 1, 0, "nowhere"))
    probes = await pool.probe(9, make_problem(9), AdapterRef(4, 0, "nowhere"), SAMPLING)
    passed = VirtualClock().now()
    await pool.ready()
    await asyncio.sleep(10.0)
    assert passed < 100.0
    assert [(group.index, group.version) for group in probes] == [(9, 4), (9, 4)]
    assert lost.slots.held == other.slots.held == frozenset({"policy-v4-r0"})
    assert lost.lives == 2


@virtually
async def test_version_that_only_missing_engines_could_hold_waits_for_one() -> None:
    engines = [FrailEngine(start_seconds=50.0), FrailEngine(start_seconds=20.0)]
    pool = EnginePool(engines, VirtualClock(), ignore)
    await pool.load(ADAPTER)
    for engine in engines:
        engine.die()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.generate(0, make_problem(0), ADAPTER, SAMPLING), 1.0)
    new = AdapterRef(1, 0, "nowhere")
    await pool.load(new)
    loaded = VirtualClock().now()
    await ask(pool, 1, new)
    served = [len(engine.served) for engine in engines]
    assert 15.0 < loaded < 30.0
    assert served == [0, 1]


@virtually
async def test_engine_given_up_is_reported_and_the_others_go_on() -> None:
    broken, other = FrailEngine(), FrailEngine()
    events: list[str] = []
    pool = EnginePool([broken, other], VirtualClock(), lambda name, kind, _: events.append(f"{name} {kind}"))
    await pool.load(ADAPTER)
    broken.stillborn = 10
    broken.die()
    await asyncio.gather(*(ask(pool, index) for index in range(4)))
    await asyncio.sleep(60.0)
    await pool.load(AdapterRef(1, 0, "nowhere"))
    group = await ask(pool, 4, AdapterRef(1, 0, "nowhere"))
    assert (group.index, len(other.served)) == (4, 5)
    assert events == ["rollout-0 died"] * DEATHS_IN_A_ROW


@pytest.mark.parametrize("missed", [False, True])
@virtually
async def test_version_retired_while_a_fresh_engine_loads_it_does_no_harm(missed: bool) -> None:
    """One that its predecessor had, or one that came while it was away, and it dies again: the folder is gone then."""
    events = list[str]()
    engines = [FrailEngine(), FrailEngine()]
    pool = EnginePool(engines, VirtualClock(), lambda name, kind, _: events.append(f"{name} {kind}"))
    old, new = AdapterRef(1, 0, "nowhere"), AdapterRef(2, 0, "nowhere")
    if not missed:
        await pool.load(old)
    engines[0].load_seconds = 100.0
    engines[0].die()
    await ask(pool, 0, old if not missed else None)
    if missed:
        await pool.load(old)
    await asyncio.sleep(10.0)
    if missed:
        engines[0].die()
        await asyncio.sleep(0.1)
    await pool.load(new)
    await pool.retire(old)
    engines[0].gone.add(old.name)
    await asyncio.sleep(300.0)
    assert pool._slots[0].healthy
    held = [engine.slots.held for engine in engines]
    assert events == ["rollout-0 died"] * (1 + missed) + ["rollout-0 restarted"]
    assert held == [frozenset({"policy-v2-r0"})] * 2


@virtually
async def test_what_keeps_an_engine_from_coming_back_is_recorded_and_ends_a_run_without_another() -> None:
    events = list[str]()
    engines = [FrailEngine(), FrailEngine()]
    pool = EnginePool(engines, VirtualClock(), lambda name, kind, detail: events.append(f"{name} {kind}: {detail}"))
    await pool.load(ADAPTER)
    for number, engine in enumerate(engines):
        engine.name = f"rollout-{number}"
        engine.gone.add(ADAPTER.name)
    engines[0].die()
    await ask(pool, 0)
    await asyncio.sleep(60.0)
    assert [event.partition(":")[0] for event in events] == ["rollout-0 died", "rollout-0 not restarted"]
    assert "no folder of policy-v0-r0" in events[1]
    engines[1].die()
    with pytest.raises(FileNotFoundError):
        await ask(pool, 1)
    with pytest.raises(FileNotFoundError):
        await pool.load(AdapterRef(1, 0, "nowhere"))
    assert [event.partition(":")[0] for event in events[2:]] == ["rollout-1 died", "rollout-1 not restarted"]


@virtually
async def test_engine_that_cannot_load_a_version_it_has_missed_is_given_up_and_the_others_go_on() -> None:
    events = list[str]()
    engines = [FrailEngine(), FrailEngine()]
    pool = EnginePool(engines, VirtualClock(), lambda name, kind, detail: events.append(f"{name} {kind}: {detail}"))
    engines[0].die()
    engines[0].gone.add(ADAPTER.name)
    await pool.load(ADAPTER)
    await asyncio.sleep(60.0)
    await pool.load(AdapterRef(1, 0, "nowhere"))
    await ask(pool, 0)
    held = [engine.slots.held for engine in engines]
    assert events[1].startswith("rollout-0 not restarted: FileNotFoundError('no folder of policy-v0-r0')")
    assert held[1] == {"policy-v0-r0", "policy-v1-r0"}


@virtually
async def test_engine_restarted_under_three_versions_serves_the_oldest_first() -> None:
    """The newest waits for a slot that only the oldest one's request, which died with the engine, can free."""
    engine = FrailEngine(seconds=10.0)
    pool = EnginePool([engine], VirtualClock(), ignore)
    versions = [AdapterRef(version, 0, "nowhere") for version in range(3)]
    await pool.load(versions[0])
    early = ask(pool, 0, versions[0])
    await pool.load(versions[1])
    await asyncio.sleep(1.0)
    await pool.retire(versions[0])
    last = asyncio.create_task(pool.load(versions[2]))
    await asyncio.sleep(1.0)
    engine.die()
    await asyncio.gather(early, last)
    await ask(pool, 1, versions[2])
    served, held = engine.served, engine.slots.held
    assert served == [(0, "policy-v0-r0"), (1, "policy-v2-r0")]
    assert held == {"policy-v1-r0", "policy-v2-r0"}


@virtually
async def test_version_given_up_before_its_turn_takes_no_other_with_it() -> None:
    engines = [FrailEngine(), FrailEngine()]
    pool = EnginePool(engines, VirtualClock(), ignore)
    engines[0].load_seconds = 20.0
    engines[0].die()
    await pool.load(ADAPTER)
    await asyncio.sleep(10.0)
    engines[0].die()
    await asyncio.sleep(0.1)
    await pool.load(AdapterRef(1, 0, "nowhere"))
    await pool.retire(AdapterRef(1, 0, "nowhere"))
    await asyncio.sleep(100.0)
    assert engines[0].slots.held == {"policy-v0-r0"}


@virtually
async def test_request_that_waits_for_an_engine_which_is_given_up_goes_to_the_one_that_comes_back() -> None:
    broken, slow = FrailEngine(), FrailEngine(start_seconds=100.0)
    pool = EnginePool([broken, slow], VirtualClock(), ignore)
    await pool.load(ADAPTER)
    broken.stillborn = 10
    broken.die()
    slow.die()
    await asyncio.gather(*(ask(pool, index) for index in range(4)))
    assert [len(broken.served), len(slow.served)] == [0, 4]


@virtually
async def test_version_retired_under_running_requests_outlives_the_engine_until_they_end() -> None:
    engine = FrailEngine(seconds=10.0)
    pool = EnginePool([engine], VirtualClock(), ignore)
    await pool.load(ADAPTER)
    group = ask(pool, 0)
    await asyncio.sleep(1.0)
    await pool.retire(ADAPTER)
    engine.die()
    group, held = await group, engine.slots.held
    assert group.version == 0
    assert held == frozenset()


@virtually
async def test_engine_that_cannot_start_again_ends_the_run_with_the_cause() -> None:
    engine = FrailEngine()
    pool = EnginePool([engine], VirtualClock(), ignore)
    engine.stillborn = 10
    engine.die()
    with pytest.raises(ActorDied, match=f"died {DEATHS_IN_A_ROW} times in a row, .* signal 9"):
        await pool.load(ADAPTER)
    with pytest.raises(ActorDied, match="in a row"):
        await ask(pool, 0)
    assert VirtualClock().now() == 2.0


async def try_synthetic(_: str, engine: Engine) -> None:
    adapters = [AdapterRef(version, 0, "nowhere") for version in (-1, -2)]
    for adapter in adapters:
        await engine.load(adapter)
    for adapter in adapters:
        await engine.retire(adapter)


@virtually
async def test_work_at_the_start_is_done_with_every_engine_before_it_has_any_version() -> None:
    engines = [FrailEngine(), FrailEngine()]
    pool = EnginePool(engines, VirtualClock(), ignore)
    begun: list[tuple[int, int, bool]] = []

    async def begin(name: str, engine: Engine) -> None:
        assert isinstance(engine, FrailEngine)
        begun.append((engines.index(engine), engine.lives, bool(engine.slots.held)))
        await try_synthetic(name, engine)

    await pool.at_start(begin)
    await pool.load(ADAPTER)
    group = ask(pool, 0)
    await asyncio.sleep(0.5)
    engines[0].die()
    await group
    await pool.retire(ADAPTER)
    await pool.ready()
    assert begun == [(0, 1, False), (1, 1, False), (0, 2, False)]


@settings(max_examples=200)
@given(st.data())
@virtually
async def test_any_schedule_of_deaths_loses_no_group_and_leaks_no_slot(data: st.DataObject) -> None:
    """Versions come and go as in a run, engines die at any time: each group is served once, by its version."""
    engines = [FrailEngine(seconds=data.draw(st.floats(0.1, 9.0))) for _ in range(data.draw(st.integers(1, 3)))]
    pool = EnginePool(engines, VirtualClock(), ignore)
    adapters = [AdapterRef(version, 0, "nowhere") for version in range(5)]

    async def kill(engine: FrailEngine, after: float) -> None:
        await asyncio.sleep(after)
        engine.die()

    kills = [
        asyncio.create_task(kill(engine, 100.0 * number + data.draw(st.floats(0.0, 60.0))))
        for engine in engines
        for number in range(data.draw(st.integers(0, 2)))
    ]
    await pool.at_start(try_synthetic)
    groups, started = [], 0
    for adapter in adapters:
        await pool.load(adapter)
        if adapter.version:
            await pool.retire(adapters[adapter.version - 1])
        for _ in range(data.draw(st.integers(0, 4))):
            groups.append((started, adapter, ask(pool, started, adapter)))
            started += 1
        await asyncio.sleep(data.draw(st.floats(0.0, 30.0)))
    for index, adapter, task in groups:
        group = await task
        assert (group.index, group.adapter) == (index, adapter)
    await pool.retire(adapters[-1])
    await asyncio.gather(*kills)
    await pool.ready()
    assert [engine.slots.held for engine in engines] == [frozenset()] * len(engines)
    assert [slot.load for slot in pool._slots] == [0] * len(engines)
