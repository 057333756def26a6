import asyncio
from collections.abc import Coroutine
from typing import Any

from actors.coordinator.ledger import Ledger, MeteredSampler
from actors.messages import Sampling
from tests.fakes import FakeEngine, make_problem
from tests.virtual_time import VirtualClock, run_virtually

SAMPLING = Sampling(samples=4, max_tokens=8, temperature=1.0, top_p=1.0, seed=0)


def test_cancelled_requests_count_what_their_time_was_enough_for() -> None:
    """A token takes a second; probes and groups alike."""

    async def scenario() -> dict[str, int]:
        clock = VirtualClock()
        ledger = Ledger(clock)
        fake = FakeEngine(seconds=1.0)
        engine = MeteredSampler(fake, "waiting", ledger)

        async def cancel(work: Coroutine[Any, Any, Any], after: float) -> None:
            task = asyncio.create_task(work)
            await asyncio.sleep(after)
            task.cancel()
            await asyncio.wait({task})

        await engine.generate(0, make_problem(0), None, SAMPLING)
        fake.seconds = 100.0
        await cancel(engine.generate(1, make_problem(1), None, SAMPLING), 3.5)
        await cancel(engine.probe(-1, make_problem(1), None, SAMPLING), 50.0)
        return ledger.counts

    assert run_virtually(scenario()) == {"tokens/waiting": 4, "tokens/cancelled": 14 + 4 * 8}
