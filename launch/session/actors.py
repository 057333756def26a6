"""Starts the Ray actors of a run or an evaluation. They do not know one another."""

import asyncio
import contextlib

import ray
from ray.util.placement_group import PlacementGroup, get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from microbudget_rl.actors.coordinator.actor import Started
from microbudget_rl.actors.coordinator.context import RunRequest
from microbudget_rl.actors.models.sizes import adapter_slots
from microbudget_rl.actors.protocols import Clock
from microbudget_rl.actors.rollout.actor import AdapterTransfer, RemoteEngine, RolloutActor
from microbudget_rl.actors.rollout.pool import EnginePool
from microbudget_rl.actors.rollout.shared_weights import SharedWeights
from microbudget_rl.actors.runtime.placement import Placement
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.actors.runtime.supervision import Record
from microbudget_rl.actors.storage.run_folder import adapters_of
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.learner.actor import LearnerActor, RemoteLearner
from microbudget_rl.rewards.actor import RemoteRewardActor, RemoteVerifier
from microbudget_rl.rewards.weighted_sum import RewardFunction, reward_function

RESERVE_S = 120
"""Seconds that the learner waits for its shares of a cluster, where another job may just be ending."""

LEARNERS, NODE_LABEL = "learners", "ray.io/node-id"
"""Name of the learner's reserved shares in the namespace of the run, and Ray's own label of a node's id."""


async def start_actors(
    request: RunRequest, started: Started, clock: Clock, record: Record
) -> tuple[EnginePool, RemoteLearner, RemoteVerifier]:
    """Start all actors of a run, and add each to `started`. On a GPU the learner waits for the engines: vLLM measures
    free memory while it starts, which no other process may take or free meanwhile.
    """
    config, model_path, placement = request.config, request.model_path, request.placement
    RemoteActor.ends = clock.now() + config.budget.seconds - request.spent
    reserved = await reserve_learners(placement)
    weights = None
    if placement.weights:
        weights = SharedWeights(config, model_path, placement.weights, clock, record)
        started.append(weights)
        placement = await weights.mapped_by(placement)
    engines = start_engines(config, model_path, placement, clock, record, reserved, weights)
    started.append(engines)
    if placement.device == "cuda":
        await engines.ready()
    ranks = start_learners(config, model_path, placement, str(adapters_of(request.folder)), reserved)
    if weights:
        weights.users += ranks
    learner = RemoteLearner(ranks, clock, record, weights)
    started.append(learner)
    verifier = start_verifier(reward_function(config), placement, clock, record)
    started.append(verifier)
    return engines, learner, verifier


def start_engines(
    config: Config,
    model_path: str,
    placement: Placement,
    clock: Clock,
    record: Record,
    reserved: PlacementGroup | None = None,
    weights: SharedWeights | None = None,
) -> EnginePool:
    """Start the engines. reserved: see `reserve_learners`; engines beside a learner process are on its GPU. weights:
    the base model that they map.
    """
    slots = adapter_slots(config)
    transfer = AdapterTransfer(slots)
    engines = [
        RemoteEngine(
            transfer,
            RolloutActor,
            f"rollout-{number}",
            share,
            config,
            model_path,
            share,
            concurrent_samples=config.rollout.concurrent_samples,
            bundle=bundle(reserved, share.beside),
        )
        for number, share in enumerate(placement.rollouts)
    ]
    if weights:
        weights.users += engines
    return EnginePool(engines, slots, clock, record)


def start_verifier(reward: RewardFunction, placement: Placement, clock: Clock, record: Record) -> RemoteVerifier:
    """Start a reward actor on each of the placement's reward nodes, or on this one."""
    actors = [
        RemoteRewardActor(reward, placement.reward_workers, number, node)
        for number, node in enumerate(placement.reward_nodes or [ray.get_runtime_context().get_node_id()])
    ]
    return RemoteVerifier(actors, clock, record)


async def reserve_learners(placement: Placement) -> PlacementGroup:
    """Reserve the learner's shares, each with that of an engine beside it, before other engines take the rest: all on
    one node if they are bound to cores. Raises BadInput if Ray does not have them free.
    """
    shares, bundles = placement.learners, []
    for rank, share in enumerate(shares):
        both = [share, *(engine for engine in placement.rollouts if engine.beside == rank)]
        bundles.append({"CPU": sum(each.threads for each in both), "GPU": round(sum(each.gpus for each in both), 2)})
    group = placement_group(
        bundles,
        strategy="STRICT_PACK" if any(share.cores for share in shares) else "PACK",
        name=LEARNERS,
        bundle_label_selector=[{NODE_LABEL: share.node} if share.node else {} for share in shares],
    )
    if not await asyncio.to_thread(group.wait, RESERVE_S):
        needs = f"{len(shares)} × {bundles[0]['GPU']:g} GPUs and {bundles[0]['CPU']} cores"
        raise BadInput(f"the learner needs {needs}, which Ray has not had free for {RESERVE_S} s: end Ray's other jobs")
    return group


def bundle(reserved: PlacementGroup | None, rank: int | None) -> PlacementGroupSchedulingStrategy | None:
    """Return the reserved share of a learner process; None for an actor that is not in one."""
    if reserved is None or rank is None:
        return None
    return PlacementGroupSchedulingStrategy(reserved, placement_group_bundle_index=rank)


def free_learners() -> None:
    """Free the reservation of a crashed coordinator, which Ray keeps until the driver ends."""
    with contextlib.suppress(ValueError):  # there is no such group
        remove_placement_group(get_placement_group(LEARNERS))


def start_learners(
    config: Config, model_path: str, placement: Placement, adapters_folder: str, reserved: PlacementGroup
) -> list[RemoteActor]:
    """Start the learner's actors, each in its reserved share."""
    ranks = list[RemoteActor]()
    for rank, share in enumerate(placement.learners):
        facts = config, model_path, share, adapters_folder, rank, len(placement.learners)
        place = bundle(reserved, rank)
        ranks.append(RemoteActor(LearnerActor, f"learner-{rank}", share, *facts, asynchronous=False, bundle=place))
    return ranks
