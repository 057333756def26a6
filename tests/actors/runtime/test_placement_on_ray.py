"""Placement on the logical resources of a Ray cluster, with light actors in the places of engines and learner."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster

from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.messages import AdapterRef, Group, Request
from microbudget_rl.actors.rollout.actor import AdapterCopies, AdapterTransfer, Fingerprint, RemoteEngine, RolloutActor
from microbudget_rl.actors.rollout.pool import EnginePool
from microbudget_rl.actors.runtime.placement import Node, Placement, place
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.launch.session.actors import NODE_LABEL, bundle, reserve_learners
from tests.actors.rollout.test_actor import make_adapter
from tests.fakes import make_group, make_request


class Whereabouts(NamedTuple):
    node: str
    gpus: tuple[int, ...]
    visible: str | None


class Light:
    """A light actor in the place of an engine or a learner, which tells its node and GPUs.

    copies: its folder for copies of adapters; it sees no others.
    """

    load_copy = RolloutActor.load_copy

    def __init__(self, copies: Path, cache_blocks: int | None = None) -> None:
        self._copies = AdapterCopies(copies)

    async def alive(self) -> None: ...

    async def cache_blocks(self) -> int:
        return 1

    async def where(self) -> Whereabouts:
        gpus = tuple(map(int, ray.get_gpu_ids()))
        return Whereabouts(ray.get_runtime_context().get_node_id(), gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))

    async def load_if_same(self, adapter: AdapterRef, expected: Fingerprint | None) -> bool:
        return False

    async def load(self, adapter: AdapterRef) -> None:
        assert Path(adapter.path, "adapter_model.safetensors").exists()

    async def generate(self, request: Request) -> Group:
        return make_group(request.index)


async def start(
    placement: Placement, events: list[str], folder: Path
) -> tuple[list[RemoteActor], list[RemoteEngine], EnginePool]:
    """Start the actors of a placement as a run does: its ranks, rollout actors and their pool."""
    group = await reserve_learners(placement)
    transfer = AdapterTransfer(2)
    rollouts = [
        RemoteEngine(
            transfer,
            Light,
            f"rollout-{number}",
            share,
            folder / "copies" / str(number),
            bundle=bundle(group, share.beside),
        )
        for number, share in enumerate(placement.rollouts)
    ]
    pool = EnginePool(rollouts, 2, WallClock(), lambda name, kind, text: events.append(f"{name} {kind}: {text}"))
    await pool.ready()
    ranks = [
        RemoteActor(Light, f"learner-{rank}", share, folder, bundle=bundle(group, rank))
        for rank, share in enumerate(placement.learners)
    ]
    return ranks, rollouts, pool


async def where(actors: Sequence[RemoteActor]) -> list[Whereabouts]:
    return [await actor.call("where") for actor in actors]


def taken(shares: Any, places: list[Whereabouts]) -> Counter[tuple[str, int]]:
    """Return the sum of the shares of each GPU."""
    gpus: Counter[tuple[str, int]] = Counter()
    for share, found in zip(shares, places, strict=True):
        (gpu,) = found.gpus
        assert found.visible == str(gpu)
        gpus[found.node, gpu] += share.gpus
    return gpus


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
    """Return the nodes, the run's own first."""
    here = ray.get_runtime_context().get_node_id()
    known = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here)
    assert all(node["Labels"][NODE_LABEL] == node["NodeID"] for node in known)
    resources = {node["NodeID"]: node["Resources"] for node in known}
    return [Node(name, tuple(range(int(has["CPU"]))), int(has.get("GPU", 0))) for name, has in resources.items()]


async def test_gpus_of_a_cluster_are_given_out_once_and_a_lost_node_is_made_up_for(cluster: Cluster, tmp_path: Path):

    events: list[str] = []
    home, *others = nodes()
    (bare,) = (node for node in others if not node.gpus)
    placement = place(home.cores, 4, ranks=2, nodes=[home, *others])
    ranks, rollouts, pool = await start(placement, events, tmp_path)
    assert placement.reward_nodes == (bare.id,)
    found = await where([*ranks, *rollouts])
    assert found[0].node == home.id
    gpus = taken((*placement.learners, *placement.rollouts), found)
    assert len(gpus) == 4
    assert set(gpus.values()) == {1.0}

    adapter = make_adapter(tmp_path)
    await pool.load(adapter)
    copies = [*tmp_path.glob(f"copies/*/{adapter.name}/*.safetensors")]
    assert len(copies) == len(rollouts)
    lost = next(place.node for place in found[2:] if place.node != home.id)
    cluster.remove_node(next(node for node in cluster.worker_nodes if node.node_id == lost))
    groups = [pool.generate(make_request(i, adapter)) for i in range(4)]
    cluster.add_node(num_cpus=8, num_gpus=2)
    assert [group.index for group in await asyncio.gather(*groups)] == [0, 1, 2, 3]
    await pool.ready()
    again = taken(placement.rollouts, await where(rollouts))
    assert set(again.values()) == {1.0}
    assert events[-1].endswith("requests sent again")
