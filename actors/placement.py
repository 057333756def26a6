"""Who gets which share of the machine."""

import os
from dataclasses import dataclass

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
class Share:
    """One actor's part of the machine: core ids it is bound to (CPU only), or a fraction of a GPU.

    gpus: Ray's num_gpus; memory: the fraction of the card's total memory the actor may use. threads: of its work on
    the processor, one a core. whole: all cores of engines and learner, the share's own first, which it has to itself
    while it takes turns with the others.
    """

    cores: tuple[int, ...] = ()
    gpus: float = 0.0
    memory: float = 0.0
    threads: int = 0
    whole: tuple[int, ...] = ()

    def bind(self, whole: bool = False) -> None:
        """Keep this process, its threads and its children to come on the share's cores, or on the whole.

        To be called first before torch is imported, which reads then how its threads are to wait.
        """
        cores = self.whole if whole else self.cores
        if cores:
            os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
            for thread in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(thread), cores)


@dataclass(frozen=True)
class Placement:
    """device: "cpu" or "cuda". rollouts: one share per rollout actor. learners: one per rank of the learner."""

    device: str
    rollouts: tuple[Share, ...]
    learners: tuple[Share, ...]
    reward_workers: int


def most_ranks(cores: tuple[int, ...], gpus: int) -> int:
    """Ranks a learner can have: one core each, or one card each, where a rollout actor has to have another."""
    return max(1, gpus - 1) if gpus else len(cores)


def place(cores: tuple[int, ...], gpus: int, ranks: int = 1) -> Placement:
    """The shares of a machine with these core ids (at least one) and this many GPUs; ranks: 1 to `most_ranks`.

    Without a GPU, engine and learner get half of the cores each, the learner the odd one, since it is the slower, in
    equal parts for its ranks and at least a core for each; one core in eight stays with the reward workers; an engine
    for which no core is left shares one. One GPU is shared. Of several, each rank of the learner has one, and each
    other one carries a rollout actor.
    """
    if gpus:
        engines = max(1, gpus - ranks)
        spare = len(cores) - CORES_PER_ENGINE * engines - CORES_PER_LEARNER * ranks
        shared = gpus == 1
        rollout_gpu, rollout_memory = (ROLLOUT_SHARE, ROLLOUT_SHARE) if shared else (1.0, WHOLE_CARD)
        learner_gpu, learner_memory = (LEARNER_SHARE, LEARNER_SHARE) if shared else (1.0, WHOLE_CARD)
        rollout = Share(gpus=rollout_gpu, memory=rollout_memory, threads=CORES_PER_ENGINE)
        threads = max(1, min(CORES_PER_LEARNER, len(cores) // ranks))
        learner = Share(gpus=learner_gpu, memory=learner_memory, threads=threads)
        return Placement("cuda", (rollout,) * engines, (learner,) * ranks, _reward_workers(spare))
    spare = min(len(cores) // 8, len(cores) - ranks)
    bound = cores[: len(cores) - spare]
    each = max(1, (len(bound) + 1) // 2 // ranks)
    first = len(bound) - each * ranks
    engine = bound[:first] or bound[:1]
    rollout = Share(cores=engine, threads=len(engine), whole=(*engine, *_without(bound, engine)))
    lent = bound[:first]
    learners = []
    for rank, start in enumerate(range(first, len(bound), each)):
        own = bound[start : start + each]
        learners.append(Share(cores=own, threads=len(own), whole=(*own, *lent[rank::ranks][: len(lent) // ranks])))
    return Placement("cpu", (rollout,), tuple(learners), _reward_workers(spare))


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


def _without(cores: tuple[int, ...], taken: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(core for core in cores if core not in taken)


def _reward_workers(spare_cores: int) -> int:
    return min(max(1, spare_cores), MOST_REWARD_WORKERS)
