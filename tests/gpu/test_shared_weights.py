"""One copy of the base model on a GPU, which engine and learner map, and the death of the process that holds it."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
import torch

from microbudget_rl.actors.adapter_check.prompts import distance, logprobs_of
from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.messages import AdapterRef, Sampling
from microbudget_rl.actors.models.files import locate
from microbudget_rl.actors.models.sizes import parameters
from microbudget_rl.actors.protocols import FAITHFUL
from microbudget_rl.actors.rollout.pool import EnginePool
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.hardware.sharing import ipc_fault
from microbudget_rl.launch.plan.plan import make_plan
from microbudget_rl.launch.session.actors import start_actors
from microbudget_rl.learner.actor import RemoteLearner
from tests.gpu.test_sharing import AGREE, PROBLEM, inside, settings


async def difference(engines: EnginePool, learner: RemoteLearner, adapter: AdapterRef) -> float:
    """Return the mean |Δ log p| between engine and learner under a synthetic adapter."""
    await engines.load(adapter)
    group = await engines.generate(0, PROBLEM, adapter, Sampling(8, 48, 1.0, 1.0, 1))
    await engines.retire(adapter)
    return distance(logprobs_of((group,)), (await learner.explain((group,)))[FAITHFUL])


def test_engine_and_learner_map_one_copy_and_survive_its_holder(machine: Machine, tmp_path: Path) -> None:
    config = changed(settings(machine), {"model.shared_weights": "on", "lora.rank": 8, "lora.alpha": 16})
    plan = make_plan(config, machine)
    assert ipc_fault(machine.cards[0]) == ""
    (tmp_path / "run").mkdir()
    events: list[tuple[str, EventKind]] = []

    async def scenario() -> tuple[float, float, int]:
        request: Any = SimpleNamespace(
            config=plan.config,
            model_path=locate(config.model),
            placement=plan.placement,
            folder=tmp_path / "run",
        )
        started: Any = []
        engines, learner, _ = await start_actors(
            request, started, WallClock(), lambda name, kind, _: events.append((name, kind))
        )
        try:
            first = await difference(engines, learner, (await learner.publish_synthetic())[0])
            own = inside(learner._actors[0], lambda _: torch.cuda.memory_allocated())
            holder = inside(started[0].actor, lambda _: os.getpid())
            os.kill(holder, signal.SIGKILL)
            await asyncio.sleep(1.0)
            await learner.revive()
            await learner.restore(None, 1)
            second = await difference(engines, learner, (await learner.publish_synthetic())[1])
            return first, second, own
        finally:
            for actor in started:
                await actor.close()

    shares = (*plan.placement.rollouts, *plan.placement.learners)
    cpus = sum(share.threads for share in shares) + 1
    ray.init(address="local", num_cpus=cpus, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        first, second, own = asyncio.run(scenario())
    finally:
        ray.shutdown()
    weights = 2 * parameters(plan.shape)
    print(f"engine and learner differ by {first:.3f}, and {second:.3f} after the holder's death")
    print(f"the learner's own tensors are {own / weights:.2f} times as large as the weights")
    assert own < weights
    assert max(first, second) < AGREE
    assert ("weights", EventKind.RESTARTED) in events
    assert ("rollout-0", EventKind.RESTARTED) in events
