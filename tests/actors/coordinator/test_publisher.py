import asyncio
from types import SimpleNamespace
from typing import Any

from microbudget_rl.actors.adapter_check.at_start import CheckAtStart
from microbudget_rl.actors.adapter_check.prompts import CheckPrompts
from microbudget_rl.actors.coordinator.publisher import PolicyPublisher
from microbudget_rl.actors.messages import AdapterRef
from tests.actors.virtual_run import make_config, make_problems
from tests.fakes import FakeEngine, FakeLearner, make_request
from tests.virtual_time import run_virtually


def test_versions_stay_as_long_as_a_group_may_need_them():
    """In the engine for a group that was admitted just before a swap, and on disk for those that are stale."""

    async def scenario() -> list[list[int]]:
        config, engine, learner = make_config({"learner.max_staleness": 2}), FakeEngine(), FakeLearner()
        engine.retire = engine.slots.retire  # type: ignore[method-assign]  # at once, as a pool's engine may
        prompts, needed = CheckPrompts(config, make_problems().train), []
        run: Any = SimpleNamespace(config=config, engine=engine, learner=learner)
        publisher = PolicyPublisher(run, prompts, CheckAtStart(engine, learner, prompts), None)
        for version in range(5):
            before, adapter = publisher.policy, AdapterRef(version, 0, "nowhere")
            await publisher.adopt(adapter)
            await publisher.check()
            group = asyncio.create_task(engine.generate(make_request(0, before or adapter)))
            await publisher.retire_outdated()  # the group's task has not called the engine yet
            assert (await group).adapter == (before or adapter)
            needed.append([each.version for each in publisher.needed])
        return needed

    assert run_virtually(scenario()) == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
