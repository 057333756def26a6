import asyncio

from actors.fleet import Fleet
from actors.messages import AdapterRef, Sampling
from tests.fakes import FakeEngine, make_problem
from tests.virtual_time import run_virtually

SAMPLING = Sampling(samples=4, max_tokens=8, temperature=1.0, top_p=1.0, seed=0)
ADAPTER = AdapterRef(0, 0, "nowhere")


def test_groups_go_to_the_engine_with_the_least_to_do() -> None:
    async def scenario() -> list[int]:
        slow, quick = FakeEngine(seconds=10.0), FakeEngine(seconds=1.0)
        fleet = Fleet([slow, quick])
        await fleet.load(ADAPTER)
        first = [asyncio.create_task(fleet.generate(i, make_problem(i), ADAPTER, SAMPLING)) for i in range(2)]
        await asyncio.sleep(2.0)
        await asyncio.gather(*first[1:], *(fleet.generate(i, make_problem(i), ADAPTER, SAMPLING) for i in (2,)))
        await asyncio.gather(*first)
        return [len(slow.served), len(quick.served)]

    assert run_virtually(scenario()) == [1, 2]


def test_every_engine_holds_every_version() -> None:
    async def scenario() -> list[frozenset[str]]:
        engines = [FakeEngine(), FakeEngine()]
        fleet = Fleet(engines)
        await fleet.load(ADAPTER)
        await fleet.load(AdapterRef(1, 0, "nowhere"))
        await fleet.retire(ADAPTER)
        return [engine.slots.held for engine in engines]

    assert run_virtually(scenario()) == [frozenset({"policy-v1-r0"})] * 2


def test_failed_request_no_longer_counts_as_load() -> None:
    async def scenario() -> list[int]:
        engines = [FakeEngine(), FakeEngine()]
        fleet = Fleet(engines)
        for engine in engines[1:]:
            await engine.load(ADAPTER)
        for _ in range(2):
            failed = await asyncio.gather(fleet.generate(0, make_problem(0), ADAPTER, SAMPLING), return_exceptions=True)
            assert isinstance(failed[0], ValueError)
        return fleet.in_flight

    assert run_virtually(scenario()) == [0, 0]
