import asyncio
from collections.abc import Iterator

import pytest
import ray

from actors.clock import WallClock
from actors.messages import Group, Problem, Sample, Status
from actors.placement import Share
from actors.remote import RemoteActor
from conf.schema import RewardConfig
from rewards.actor import RemoteJudge, RemoteVerifier, RewardActor


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_groups_go_round_the_actors_and_come_back_scored() -> None:
    weights = [RewardConfig(accuracy=accuracy, format=0.0) for accuracy in (1.0, 2.0)]
    samples = (Sample((1,), (0.0,), r"\boxed{0.5}", "stop"), Sample((1,), (0.0,), r"\boxed{1/3}", "stop"))
    groups = [Group(index, Problem("id", "prompt", (1,), "1/2"), None, samples) for index in range(4)]

    async def score_all_then_close() -> list[Group]:
        judges = [
            RemoteJudge(RemoteActor(RewardActor, f"reward-{number}", Share(), config, 1), config.deadline_s)
            for number, config in enumerate(weights)
        ]
        verifier = RemoteVerifier(judges, WallClock(), lambda name, text: None)
        scored = await asyncio.gather(*map(verifier.score, groups))
        await verifier.close()
        return scored

    scored = asyncio.run(score_all_then_close())
    assert [group.index for group in scored] == [0, 1, 2, 3]
    assert [group.rewards[0].total for group in scored] == [1.0, 2.0, 1.0, 2.0]
    assert all(group.rewards[1].verdict.status is Status.WRONG for group in scored)
