"""Who gets which share of the machine, or of the cluster."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

ROLLOUT_SHARE = 0.45
LEARNER_SHARE = 0.50
"""Of one shared card. The learner's activations come in peaks, the engine's memory is a KV cache that can be any size;
the twentieth that is left covers what neither allocator sees: two CUDA contexts and fragments."""

WHOLE_CARD = 0.90
"""Memory an actor uses of a card of its own: vLLM's default, which leaves room for CUDA's context and graphs."""

CORES_PER_ENGINE = 2
"""On a GPU machine: vLLM's server process and its engine process each keep a core busy."""

CORES_PER_LEARNER = 4
"""On a GPU machine: the optimizer step of the offloaded weights is threaded, beyond this host memory limits it."""

SPINS = "1000"
"""How often a thread of OpenMP's looks for work before it sleeps: about a twentieth of a millisecond. With libgomp's
300,000 the threads of an actor burn the time in which a neighbour on one of their cores would have ended: beside other
work small products took five times as long on two threads as on one, and hardly longer with this."""

MOST_REWARD_WORKERS = 8
"""A verdict takes milliseconds: more workers than this would only wait."""


@dataclass(frozen=True)
class Node:
    """One machine of a Ray cluster: Ray's id of it, the ids of the cores its processes may use, and its cards."""

    id: str
    cores: tuple[int, ...]
    gpus: int


@dataclass(frozen=True)
class Share:
    """One actor's part of the machine: core ids it is bound to (CPU only), or a fraction of a GPU.

    gpus: Ray's num_gpus; memory: the fraction of the card's total memory the actor may use. threads: of its work on
    the processor, one a core. node: where the share is; empty for any.
    """

    cores: tuple[int, ...] = ()
    gpus: float = 0.0
    memory: float = 0.0
    threads: int = 0
    node: str = ""

    def bind(self) -> None:
        """Keep this process, its threads and its children to come on the share's cores.

        To be called first before torch is imported, which reads then how its threads are to wait.
        """
        if self.cores:
            os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
            for thread in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(thread), self.cores)


@dataclass(frozen=True)
class Placement:
    """device: "cpu" or "cuda". rollouts: one share per rollout actor. learners: one per rank of the learner.
    reward_workers: processes that judge, on each of the nodes `judges`, or where the run was started if there are none.
    """

    device: str
    rollouts: tuple[Share, ...]
    learners: tuple[Share, ...]
    reward_workers: int
    judges: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether engines and learner compute on the same card or cores."""
        taken = {(share.node, core) for share in self.rollouts for core in share.cores}
        return any(
            share.gpus % 1 or not taken.isdisjoint((share.node, core) for core in share.cores)
            for share in self.learners
        )


def most_ranks(cores: tuple[int, ...], gpus: int, engines: int | None = None) -> int:
    """Ranks a learner can have beside so many rollout actors: one core each, or one card each, where those have to have
    others.
    """
    return max(1, gpus - (engines or 1)) if gpus else len(cores)


def most_engines(cores: tuple[int, ...], gpus: int) -> int:
    """Rollout actors there can be: one a core, or one a card, where the learner has to have another."""
    return max(1, gpus - 1) if gpus else len(cores)


def place(
    cores: tuple[int, ...], gpus: int, ranks: int = 1, engines: int | None = None, nodes: Sequence[Node] = ()
) -> Placement:
    """The shares of a machine with these core ids (at least one) and this many GPUs; ranks: 1 to `most_ranks`; engines:
    rollout actors, 1 to `most_engines`, or as many as are useful. nodes: of a cluster, that the run is started on
    first; `cores` is then of that one, and `gpus` of all.

    Without a GPU, engines and learner get half of the cores each, the learner the odd one, since it is the slower, in
    equal parts for its ranks and at least a core for each; one core in eight stays with the reward workers; an engine
    for which no core is left shares one. Of several nodes without a GPU the first is the learner's, the others are the
    engines'. One GPU is shared. Of several, each rank of the learner has one, and each other one carries a rollout
    actor; rank 0 stays where the run's folder is.
    """
    if gpus:
        return _on_cards(cores, gpus, ranks, engines or max(1, gpus - ranks), nodes)
    if len(nodes) > 1:
        return _on_nodes(nodes, ranks, engines or len(nodes) - 1)
    return _on_cores(cores, ranks, engines or 1)


def place_engines(cores: tuple[int, ...], gpus: int) -> Placement:
    """The shares where nothing is learned: each card carries a rollout actor; without one, a single rollout actor has
    all cores but the one in eight that stays with the reward workers.
    """
    if gpus:
        share = Share(gpus=1.0, memory=WHOLE_CARD, threads=CORES_PER_ENGINE)
        return Placement("cuda", (share,) * gpus, (), _reward_workers(len(cores) - CORES_PER_ENGINE * gpus))
    spare = len(cores) // 8
    bound = cores[: len(cores) - spare]
    return Placement("cpu", (Share(cores=bound, threads=len(bound)),), (), _reward_workers(spare))


def _on_cards(cores: tuple[int, ...], gpus: int, ranks: int, engines: int, nodes: Sequence[Node]) -> Placement:
    shared = gpus == 1
    rollout_gpu, rollout_memory = (ROLLOUT_SHARE, ROLLOUT_SHARE) if shared else (1.0, WHOLE_CARD)
    learner_gpu, learner_memory = (LEARNER_SHARE, LEARNER_SHARE) if shared else (1.0, WHOLE_CARD)
    each = len(cores) // (1 if shared else ranks)
    if nodes:
        each = min(len(node.cores) // node.gpus for node in nodes if node.gpus)
    engine_cores = max(1, min(CORES_PER_ENGINE, each - 1 if shared else each)) if nodes else CORES_PER_ENGINE
    learner_cores = max(1, min(CORES_PER_LEARNER, each - engine_cores if shared and nodes else each))
    rollout = Share(gpus=rollout_gpu, memory=rollout_memory, threads=engine_cores)
    learner = Share(gpus=learner_gpu, memory=learner_memory, threads=learner_cores)
    learners = [learner] * ranks
    if nodes and nodes[0].gpus:
        learners[0] = replace(learner, node=nodes[0].id)
    judges = [node for node in nodes if not node.gpus]
    spare = len(cores) - CORES_PER_ENGINE * engines - CORES_PER_LEARNER * ranks
    workers = min(len(node.cores) for node in judges) if judges else spare
    ids = tuple(node.id for node in judges)
    return Placement("cuda", (rollout,) * engines, tuple(learners), _reward_workers(workers), ids)


def _on_cores(cores: tuple[int, ...], ranks: int, engines: int) -> Placement:
    spare = min(len(cores) // 8, len(cores) - ranks)
    bound = cores[: len(cores) - spare]
    each = max(1, (len(bound) + 1) // 2 // ranks)
    lent = bound[: len(bound) - each * ranks]
    of_engines = lent or bound[:1]
    of_learner = bound[len(lent) :]
    return Placement(
        "cpu",
        tuple(map(_bound, _split(of_engines, engines))),
        tuple(map(_bound, _split(of_learner, ranks))),
        _reward_workers(spare),
    )


def _on_nodes(nodes: Sequence[Node], ranks: int, engines: int) -> Placement:
    home, *others = nodes
    spare = min(len(home.cores) // 8, len(home.cores) - ranks)
    rollouts: list[Share] = []
    for number, node in enumerate(others):
        count = len(range(number, engines, len(others)))
        rollouts += (_bound(own, node.id) for own in (_split(node.cores, count) if count else ()))
    cores = home.cores[: (len(home.cores) - spare) // ranks * ranks]
    learners = (_bound(own, home.id) for own in _split(cores, ranks))
    return Placement("cpu", tuple(rollouts), tuple(learners), _reward_workers(spare))


def _bound(cores: tuple[int, ...], node: str = "") -> Share:
    return Share(cores=cores, threads=len(cores), node=node)


def _split(cores: tuple[int, ...], parts: int) -> list[tuple[int, ...]]:
    """Neighbouring cores for each part, the first ones having one more where it does not come out even, and shared if
    there are fewer cores than parts.
    """
    if len(cores) < parts:
        return [(cores[number % len(cores)],) for number in range(parts)]
    each, left = divmod(len(cores), parts)
    starts = [number * each + min(number, left) for number in range(parts + 1)]
    return [cores[start:end] for start, end in pairwise(starts)]


def _reward_workers(spare_cores: int) -> int:
    return min(max(1, spare_cores), MOST_REWARD_WORKERS)
