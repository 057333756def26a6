"""The actors of a run whose learner maps the memory of another actor. The CPU's stands in for a GPU's."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors.clock import WallClock
from actors.messages import Problem, Sampling
from actors.rollout import shared_weights
from actors.rollout.shared_weights import WeightsActor
from actors.runtime.placement import Share, place
from actors.storage.documents import EventKind
from conf.schema import Config
from conf.settings import changed
from launch.session.actors import start_actors
from tests.learner.model.weights_holder import hold


class OnCpu(WeightsActor):
    def __init__(self, config: Config, model_path: str, *_: Any) -> None:
        self._daemon: Any = SimpleNamespace(model=hold(config, model_path))
        self._fraction = 0.0

    async def alive(self) -> None: ...

    async def serve(self) -> None:
        await asyncio.Event().wait()


async def run(request: Any) -> tuple[bool, set[int], set[int], list[tuple[str, EventKind]]]:
    """Return whether the learner reads shared memory, the processes at first and after the holder's death, and the
    events.
    """
    started: Any = []
    events: list[tuple[str, EventKind]] = []

    async def look() -> set[int]:
        """Have engine and learner work, and return the processes of all three."""
        adapter = await learner.publish()
        await engines.load(adapter)
        await engines.generate(0, Problem("p", "", (3, 4, 5), "1"), adapter, Sampling(1, 2, 1.0, 1.0, 1))
        await engines.retire(adapter)
        actors = (started[0].actor._actor, engines._slots[0].actor._actor, learner._actors[0])
        return set(await asyncio.gather(*(of(actor, lambda _: os.getpid()) for actor in actors)))

    async def of(actor: Any, work: Any) -> Any:
        return await actor._process.handle.__ray_call__.remote(work)

    engines, learner, _ = await start_actors(
        request, started, WallClock(), lambda name, kind, _: events.append((name, kind))
    )
    before = await look()
    mapped = await of(
        learner._actors[0],
        lambda actor: all(p.is_shared() for p in actor._learner.model.parameters() if not p.requires_grad),
    )
    os.kill(await of(started[0].actor._actor, lambda _: os.getpid()), signal.SIGKILL)
    while ("weights", EventKind.RESTARTED) not in events:
        await asyncio.sleep(0.1)
    await learner.revive()
    await learner.restore(None, 1)
    after = await look()
    for actor in started:
        await actor.close()
    return mapped, before, after, events


@pytest.mark.slow
def test_all_start_again_when_the_holder_of_the_weights_dies(
    tiny_config: Config, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_weights, "WeightsActor", OnCpu)
    request = SimpleNamespace(
        config=changed(tiny_config, {"rollout.kv_cache_gib": 1, "rollout.max_concurrent_samples": 1}),
        model_path=str(tiny_model),
        placement=replace(place(tuple(sorted(os.sched_getaffinity(0))), 0), weights=Share()),
        folder=tmp_path,
    )
    ray.init("local", num_cpus=16, include_dashboard=False, object_store_memory=80 * 2**20)
    try:
        mapped, before, after, events = asyncio.run(run(request))
    finally:
        ray.shutdown()
    assert mapped
    assert len(before) == len(after) == 3
    assert before.isdisjoint(after)
    assert ("rollout-0", EventKind.RESTARTED) in events
