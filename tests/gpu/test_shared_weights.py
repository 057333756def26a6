"""One copy of the base model on a GPU, which engine and learner map, and the death of the process that holds it."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.messages import Request
from microbudget_rl.actors.models.files import locate
from microbudget_rl.actors.models.sizes import parameters
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.actors.rollout.pool import EnginePool
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.launch.session.actors import start_actors
from microbudget_rl.launch.sharing import ipc_fault
from microbudget_rl.learner.actor import RemoteLearner
from tests.gpu.test_sharing import AGREE, PROBLEM, SAMPLING, distances, inside, ray_for, settings


async def difference(engines: EnginePool, learner: RemoteLearner, number: int) -> float:
    """Return the mean |Δ log p| between engine and learner under a synthetic adapter."""
    adapter = (await learner.publish_synthetic())[number]
    await engines.load(adapter)
    group = await engines.generate(Request(0, PROBLEM, adapter, SAMPLING))
    await engines.retire(adapter)
    return (await distances(learner, group))[FAITHFUL]


def test_engine_and_learner_map_one_copy_and_survive_its_holder(machine: Machine, tmp_path: Path):
    config = changed(settings(machine), {"model.shared_weights": "on", "lora.rank": 8, "lora.alpha": 16})
    plan = make_plan(config, machine)
    assert ipc_fault(machine.cards[0]) == ""
    (tmp_path / "run").mkdir()
    events: list[tuple[str, ...]] = []

    async def scenario() -> None:
        facts = {"config": plan.config, "model_path": locate(config.model), "placement": plan.placement, "spent": 0.0}
        request: Any = SimpleNamespace(**facts, folder=tmp_path / "run")
        started: Any = []
        engines, learner, _ = await start_actors(request, started, WallClock(), lambda *said: events.append(said[:2]))
        try:
            first = await difference(engines, learner, 0)
            own = inside(learner._actors[0], lambda _: torch.cuda.memory_allocated()) / (2 * parameters(plan.shape))
            os.kill(inside(started[0].actor, lambda _: os.getpid()), signal.SIGKILL)
            await asyncio.sleep(1.0)
            await learner.revive()
            await learner.restore(None, 1)
            second = await difference(engines, learner, 1)
        finally:
            for actor in started:
                await actor.close()
        print(f"engine and learner differ by {first:.3f}, and {second:.3f} after the holder's death")
        print(f"the learner's own tensors are {own:.2f} times as large as the weights")
        assert own < 1.0
        assert max(first, second) < AGREE

    with ray_for(plan.placement):
        asyncio.run(scenario())
    assert {("weights", EventKind.RESTARTED), ("rollout-0", EventKind.RESTARTED)} <= {*events}
