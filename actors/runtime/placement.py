"""The share of each actor in the machine, or in the cluster."""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

CUDA_CONTEXT = 2**29
"""Bytes of GPU memory that a process takes before its first tensor. Neither vLLM nor torch counts them in its share."""

SHARED_GPU = 0.95
"""Fraction of a GPU's free memory that engine and learner take with their contexts; the rest is for what no plan
counts, and for other processes that grow."""

WHOLE_GPU = 0.90
"""Fraction of an unshared GPU's memory that its actor uses: vLLM's default, with room for CUDA's context and graphs."""

CORES_PER_ENGINE = 2
"""Cores of an engine on a GPU machine: its thread keeps one core busy; its event loop and Ray share the other."""

CORES_PER_LEARNER = 4
"""Cores of a learner on a GPU machine, whose offloaded optimizer step is threaded, up to what host memory feeds."""

SPINS = "1000"
"""Value of GOMP_SPINCOUNT: an OpenMP thread looks for work this often before it sleeps, about 0.05 ms in all. On a busy
machine, small products took five times as long on two threads as on one with libgomp's 300,000, and hardly longer with
this."""

MALLOC = {-1: 2**31 - 1, -3: 2**30, -8: 1}
"""Options of glibc's mallopt: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in bytes, and M_ARENA_MAX. They keep freed tensors
in the process. Otherwise the system clears the pages of every large tensor anew, a tenth of an engine's step."""

MOST_REWARD_WORKERS = 8
"""Most reward workers: a verdict takes milliseconds, and more workers would only wait."""


@dataclass(frozen=True)
class Node:
    """One machine of a Ray cluster.

    id: Ray's.
    cores: ids of the usable cores.
    gpus: number of GPUs.
    """

    id: str
    cores: tuple[int, ...]
    gpus: int

    @property
    def name(self) -> str:
        """The node's name as `ray status` shows it."""
        return f"node {self.id[:8]}"


@dataclass(frozen=True)
class Mapped:
    """The base model's weights in another process on the same GPU.

    folder: where its socket is.
    memory: fraction of the GPU's memory that they take.
    """

    folder: str
    memory: float


@dataclass(frozen=True)
class Share:
    """One actor's part of the machine.

    cores: ids of the cores it is bound to; empty on a GPU.
    gpus: Ray's num_gpus.
    memory: usable fraction of the GPU's memory.
    threads: number of CPU threads, one per bound core.
    node: id of its node; empty for any.
    beside: rank of the learner process with which an engine shares a GPU; None for none.
    mapped: weights that it maps in addition to its own memory, None if it loads them.
    """

    cores: tuple[int, ...] = ()
    gpus: float = 0.0
    memory: float = 0.0
    threads: int = 0
    node: str = ""
    beside: int | None = None
    mapped: Mapped | None = None

    def bind(self) -> None:
        """Keep this process, its threads and its later children on the share's cores, and freed memory in the process.
        Call it before importing torch, whose OpenMP reads GOMP_SPINCOUNT.
        """
        if self.cores:
            os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
            for option, value in MALLOC.items():
                ctypes.CDLL(None).mallopt(option, value)
            for thread in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(thread), self.cores)


@dataclass(frozen=True)
class Placement:
    """The shares of all actors of a run.

    device: "cpu" or "cuda".
    reward_workers: processes that verify answers, on each reward node.
    reward_nodes: ids; if empty, the node where the run was started verifies.
    weights: share of the process that holds the base model for engine and learner; None if each loads its own.
    """

    device: str
    rollouts: tuple[Share, ...]
    learners: tuple[Share, ...]
    reward_workers: int
    reward_nodes: tuple[str, ...] = ()
    weights: Share | None = None

    @property
    def gpus(self) -> int:
        """Number of GPUs that the actors need."""
        alone = [share for share in (*self.rollouts, *self.learners) if share.gpus and share.beside is None]
        return len(alone)

    @property
    def shared_gpus(self) -> int:
        """Number of GPUs that an engine and a learner process share."""
        return sum(share.beside is not None for share in self.rollouts)

    @property
    def shared(self) -> bool:
        """Whether engines and learner compute on the same GPU or cores."""
        taken = {(share.node, core) for share in self.rollouts for core in share.cores}
        return any(
            share.gpus % 1 or not taken.isdisjoint((share.node, core) for core in share.cores)
            for share in self.learners
        )


def most_actors(cores: tuple[int, ...], gpus: int) -> int:
    """Return the learner's largest world size, and the largest number of engines: one per GPU, or else per core."""
    return gpus or len(cores)


def place(
    cores: tuple[int, ...], gpus: int, ranks: int = 1, engines: int | None = None, nodes: Sequence[Node] = ()
) -> Placement:
    """Return the shares of a run on these cores and GPUs, or on the nodes of a cluster, the run's own node first.

    ranks, engines: the learner's world size and the rollout actors, up to `most_actors` each; by default there are as
    many engines as find a GPU of their own, and at least one.

    Each learner process has a GPU, and each engine another one while there are enough; further engines share the GPUs
    of the first learner processes, half and half until `launch.sharing.divide` knows their needs. The first learner
    process is on the run's own node. Without a GPU, one core in eight is for the reward workers; the learner gets half
    of the others, rounded up, and the engines get the rest. Engine and learner share a core only if the learner needs
    all: when both shared two, a quickstart update took 8.6 s instead of 5.6 (EPYC, bfloat16). Of several nodes without
    a GPU the first is the learner's.
    """
    if gpus:
        return _on_gpus(cores, gpus, ranks, engines or max(1, gpus - ranks), nodes)
    if len(nodes) > 1:
        return _on_nodes(nodes, ranks, engines or len(nodes) - 1)
    return _on_cores(cores, ranks, engines or 1)


def place_engines(cores: tuple[int, ...], gpus: int, room: float = WHOLE_GPU) -> Placement:
    """Return shares without a learner: an engine on each GPU, with this room, or one on seven in eight cores."""
    if gpus:
        rollouts = (replace(_on_gpu(1.0, CORES_PER_ENGINE), memory=min(room, WHOLE_GPU)),) * gpus
        return Placement("cuda", rollouts, (), _reward_workers(len(cores) - CORES_PER_ENGINE * gpus))
    spare = len(cores) // 8
    return Placement("cpu", (_bound(cores[: len(cores) - spare]),), (), _reward_workers(spare))


def _on_gpus(cores: tuple[int, ...], gpus: int, ranks: int, engines: int, nodes: Sequence[Node]) -> Placement:
    shared = max(engines + ranks - gpus, 0)
    engine_cores, learner_cores = CORES_PER_ENGINE, max(1, min(CORES_PER_LEARNER, len(cores) // ranks))
    if nodes:  # an actor must not need more cores than its node has per GPU
        each = min(len(node.cores) // node.gpus for node in nodes if node.gpus)
        engine_cores = max(1, min(CORES_PER_ENGINE, each - 1 if shared else each))
        learner_cores = max(1, min(CORES_PER_LEARNER, each - engine_cores if shared else each))
    half, whole, learner = SHARED_GPU / 2, _on_gpu(1.0, engine_cores), _on_gpu(1.0, learner_cores)
    beside = tuple(replace(_on_gpu(half, engine_cores), beside=rank) for rank in range(shared))
    first, *learners = (_on_gpu(half, learner_cores),) * shared + (learner,) * (ranks - shared)
    if nodes and nodes[0].gpus:
        first = replace(first, node=nodes[0].id)
    without = [node for node in nodes if not node.gpus]
    spare = len(cores) - CORES_PER_ENGINE * engines - CORES_PER_LEARNER * ranks
    return Placement(
        device="cuda",
        rollouts=(whole,) * (engines - shared) + beside,
        learners=(first, *learners),
        reward_workers=_reward_workers(min((len(node.cores) for node in without), default=spare)),
        reward_nodes=tuple(node.id for node in without),
    )


def _on_cores(cores: tuple[int, ...], ranks: int, engines: int) -> Placement:
    spare = min(len(cores) // 8, len(cores) - ranks)
    bound = cores[: len(cores) - spare]
    each = max(1, (len(bound) + 1) // 2 // ranks)
    of_engines = bound[: len(bound) - each * ranks]
    return Placement(
        "cpu",
        rollouts=tuple(map(_bound, _split(of_engines or bound[:1], engines))),
        learners=tuple(map(_bound, _split(bound[len(of_engines) :], ranks))),
        reward_workers=_reward_workers(spare),
    )


def _on_nodes(nodes: Sequence[Node], ranks: int, engines: int) -> Placement:
    home, *others = nodes
    spare = min(len(home.cores) // 8, len(home.cores) - ranks)
    rollouts: list[Share] = []
    for number, node in enumerate(others):
        count = len(range(number, engines, len(others)))
        rollouts += (_bound(part, node.id) for part in (_split(node.cores, count) if count else ()))
    cores = home.cores[: (len(home.cores) - spare) // ranks * ranks]
    learners = tuple(_bound(part, home.id) for part in _split(cores, ranks))
    return Placement("cpu", tuple(rollouts), learners, _reward_workers(spare))


def _bound(cores: tuple[int, ...], node: str = "") -> Share:
    return Share(cores=cores, threads=len(cores), node=node)


def _on_gpu(fraction: float, threads: int) -> Share:
    return Share(gpus=fraction, memory=min(fraction, WHOLE_GPU), threads=threads)


def _split(cores: tuple[int, ...], parts: int) -> list[tuple[int, ...]]:
    """Divide cores into equal parts, the first ones larger by one if need be; fewer cores than parts are shared."""
    if len(cores) < parts:
        return [(cores[number % len(cores)],) for number in range(parts)]
    each, left = divmod(len(cores), parts)
    starts = [number * each + min(number, left) for number in range(parts + 1)]
    return [cores[start:end] for start, end in pairwise(starts)]


def _reward_workers(spare_cores: int) -> int:
    return min(max(1, spare_cores), MOST_REWARD_WORKERS)
