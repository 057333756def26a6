"""Placement on the logical resources of a Ray cluster, with light actors in the places of engines and learner."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.rollout.actor import AdapterTransfer, Fingerprint, RemoteEngine
from actors.rollout.pool import EnginePool
from actors.runtime.clock import WallClock
from actors.runtime.placement import Node, Placement, place
from actors.runtime.remote_actor import RemoteActor
from launch.session.actors import NODE_LABEL, reserve_learners
from tests.fakes import make_group, make_problem

SAMPLING = Sampling(samples=2, max_tokens=8, temperature=1.0, top_p=1.0, seed=0)


class Whereabouts(NamedTuple):
    node: str
    gpus: tuple[int, ...]
    visible: str | None


class Light:
    """An engine or a rank in name, which says where it is. cache_blocks: what a successor is given."""

    def __init__(self, cache_blocks: int | None = None) -> None: ...

    async def alive(self) -> None: ...

    async def cache_blocks(self) -> int:
        return 1

    async def where(self) -> Whereabouts:
        gpus = tuple(map(int, ray.get_gpu_ids()))
        return Whereabouts(ray.get_runtime_context().get_node_id(), gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))

    async def load_if_same(self, adapter: AdapterRef, expected: Fingerprint | None) -> bool:
        return True

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        return make_group(index)


class Run:
    """The actors of a placement, started as a run starts them."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.events: list[str] = []

    async def start(self) -> None:
        group = await reserve_learners(self.placement)
        self.rollouts = [
            RemoteActor(Light, f"rollout-{number}", share) for number, share in enumerate(self.placement.rollouts)
        ]
        engines = [RemoteEngine(actor, 8, AdapterTransfer()) for actor in self.rollouts]
        self.pool = EnginePool(
            engines, WallClock(), lambda name, kind, text: self.events.append(f"{name} {kind}: {text}")
        )
        await self.pool.ready()
        self.ranks = [
            RemoteActor(Light, f"learner-{rank}", share, bundle=PlacementGroupSchedulingStrategy(group, rank))
            for rank, share in enumerate(self.placement.learners)
        ]

    async def where(self, actors: list[RemoteActor]) -> list[Whereabouts]:
        return [await actor.call("where") for actor in actors]


def taken(shares: Any, places: list[Whereabouts]) -> Counter[tuple[str, int]]:
    """What is given away of each card."""
    cards: Counter[tuple[str, int]] = Counter()
    for share, found in zip(shares, places, strict=True):
        (gpu,) = found.gpus
        assert found.visible == str(gpu)
        cards[found.node, gpu] += share.gpus
    return cards


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "ranks"), [(1, 1), (2, 1), (8, 3)])
def test_cards_of_one_machine_are_given_out_as_planned(gpus: int, ranks: int) -> None:
    ray.init(address="local", num_cpus=32, num_gpus=gpus, include_dashboard=False, log_to_driver=False)

    async def scenario() -> None:
        run = Run(place(tuple(range(32)), gpus, ranks))
        await run.start()
        shares = (*run.placement.learners, *run.placement.rollouts)
        cards = taken(shares, await run.where([*run.ranks, *run.rollouts]))
        assert len(cards) == gpus
        assert set(cards.values()) == {1.0 if gpus > 1 else 0.95}

    asyncio.run(scenario())
    ray.shutdown()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes of two cards, the run's own first, and one without."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "num_gpus": 2})
    cluster.add_node(num_cpus=8, num_gpus=2)
    cluster.add_node(num_cpus=4)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def nodes() -> list[Node]:
    here = ray.get_runtime_context().get_node_id()
    known = [node for node in ray.nodes() if node["Alive"]]
    assert all(node["Labels"][NODE_LABEL] == node["NodeID"] for node in known)
    return sorted(
        (
            Node(node["NodeID"], tuple(range(int(node["Resources"]["CPU"]))), int(node["Resources"].get("GPU", 0)))
            for node in known
        ),
        key=lambda node: node.id != here,
    )


def test_cards_of_a_cluster_are_given_out_once_and_a_lost_node_is_made_up_for(cluster: Cluster) -> None:
    async def scenario() -> None:
        home, *others = nodes()
        (bare,) = (node for node in others if not node.gpus)
        run = Run(place(home.cores, 4, ranks=2, nodes=[home, *others]))
        await run.start()
        assert run.placement.reward_nodes == (bare.id,)
        ranks, rollouts = await run.where(run.ranks), await run.where(run.rollouts)
        assert ranks[0].node == home.id
        cards = taken((*run.placement.learners, *run.placement.rollouts), ranks + rollouts)
        assert len(cards) == 4
        assert set(cards.values()) == {1.0}

        await run.pool.load(AdapterRef(0, 0, "nowhere"))
        cluster.remove_node(next(node for node in cluster.worker_nodes if node.node_id == lost(home, rollouts)))
        groups = [run.pool.generate(i, make_problem(i), AdapterRef(0, 0, "nowhere"), SAMPLING) for i in range(4)]
        cluster.add_node(num_cpus=8, num_gpus=2)
        assert [group.index for group in await asyncio.gather(*groups)] == [0, 1, 2, 3]
        await run.pool.ready()
        again = taken(run.placement.rollouts, await run.where(run.rollouts))
        assert set(again.values()) == {1.0}
        assert run.events
        assert run.events[-1].endswith("requests asked again")

    def lost(home: Node, rollouts: list[Whereabouts]) -> str:
        return next(found.node for found in rollouts if found.node != home.id)

    asyncio.run(scenario())
