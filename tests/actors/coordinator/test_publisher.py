import asyncio
from types import SimpleNamespace
from typing import Any

from actors.adapter_check.at_start import CheckAtStart
from actors.adapter_check.prompts import CheckPrompts
from actors.coordinator.publisher import PolicyPublisher
from actors.messages import AdapterRef, Sampling
from tests.actors.virtual_run import make_config, make_problems
from tests.fakes import FakeEngine, FakeLearner, make_problem
from tests.virtual_time import run_virtually


def test_group_admitted_just_before_a_swap_keeps_its_version() -> None:
    """Its task has not called the engine yet when the next version is the policy."""

    async def scenario() -> None:
        config, engine, learner = make_config(), FakeEngine(), FakeLearner()
        prompts = CheckPrompts(config, make_problems().train)
        run: Any = SimpleNamespace(config=config, engine=engine, learner=learner)
        publisher = PolicyPublisher(run, prompts, CheckAtStart(engine, learner, prompts), None)
        adapters = [AdapterRef(version, 0, "nowhere") for version in (0, 1)]
        for adapter in adapters:
            await publisher.adopt(adapter)
            await publisher.check()
        sampling = Sampling(samples=2, max_tokens=8, temperature=1.0, top_p=1.0, seed=0)
        group = asyncio.create_task(engine.generate(0, make_problem(0), adapters[0], sampling))
        await publisher.retire_outdated()
        assert (await group).version == 0

    run_virtually(scenario())
