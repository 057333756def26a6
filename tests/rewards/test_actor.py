import asyncio
from collections.abc import Iterator

import pytest
import ray

from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.messages import Group, Problem, Status
from microbudget_rl.conf.schema import CustomRewardConfig, RewardConfig
from microbudget_rl.conf.schema.reward import RemoteConfig
from microbudget_rl.rewards.actor import RemoteRewardActor, RemoteVerifier
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.fakes import make_group
from tests.rewards.corpus import sample


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_groups_are_spread_over_the_actors():
    configs = [RewardConfig(accuracy=accuracy, format=0.0) for accuracy in (1.0, 2.0)]
    samples = (sample(r"\boxed{\frac{2}{\sqrt{2}}}"), sample(r"\boxed{\sqrt{3}}"))
    groups = [Group(index, Problem("id", "prompt", (1,), r"\sqrt{2}"), None, samples) for index in range(4)]

    async def score_all_then_close() -> list[Group]:
        actors = [RemoteRewardActor(RewardFunction(config), 1, number) for number, config in enumerate(configs)]
        verifier = RemoteVerifier(actors, WallClock(), lambda *_: None)
        scored = await asyncio.gather(*map(verifier.score, groups))
        await verifier.close()
        return scored

    scored = asyncio.run(score_all_then_close())
    assert [group.index for group in scored] == [0, 1, 2, 3]
    assert [group.rewards[0].total for group in scored] == [1.0, 2.0, 1.0, 2.0]
    assert all(group.rewards[1].verdict.status is Status.WRONG for group in scored)


def test_an_actor_gets_the_time_of_all_calls():
    allowed: list[float] = []

    class Actor(RemoteRewardActor):
        def start(self, *_: object) -> None: ...

        async def call(self, method: str, *arguments: object, deadline_s: float | None = None) -> None:
            assert deadline_s is not None
            allowed.append(deadline_s)

    config = RewardConfig(deadline_s=5.0, custom=[CustomRewardConfig("mine:judge"), CustomRewardConfig("mine:tone")])
    group = make_group(0, scores=(1.0, 0.0))
    asyncio.run(Actor(RewardFunction(config), 1).score(group))
    assert allowed[0] > len(group.samples) * 3 * 5 * 5.0
    remote = RemoteConfig(deadline_s=1.0, concurrency=4, per_minute=6.0)
    config = RewardConfig(custom=[CustomRewardConfig("mine:judge", network=True)], remote=remote)
    asyncio.run(Actor(RewardFunction(config), 8).score(group))
    assert allowed[1] > len(group.samples) * 4 * 60 / 6
