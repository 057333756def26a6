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
        """Keep this process, its threads and its children to come on the share's cores, or on the whole."""
        cores = self.whole if whole else self.cores
        if cores:
            for thread in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(thread), cores)


@dataclass(frozen=True)
class Placement:
    """device: "cpu" or "cuda". rollouts: one share per rollout actor. learner: the learner's share."""

    device: str
    rollouts: tuple[Share, ...]
    learner: Share
    reward_workers: int


def place(cores: tuple[int, ...], gpus: int) -> Placement:
    """The shares of a machine with these core ids (at least one) and this many GPUs.

    Without a GPU, engine and learner get half of the cores each, the learner the odd one, since it is the slower; one
    core in eight stays with the reward workers; a single core is shared. One GPU is shared. Of several, the learner
    has the first and each other one carries a rollout actor.
    """
    if gpus:
        spare = len(cores) - CORES_PER_ENGINE * max(1, gpus - 1) - CORES_PER_LEARNER
        shared = gpus == 1
        rollout_gpu, rollout_memory = (ROLLOUT_SHARE, ROLLOUT_SHARE) if shared else (1.0, WHOLE_CARD)
        learner_gpu, learner_memory = (LEARNER_SHARE, LEARNER_SHARE) if shared else (1.0, WHOLE_CARD)
        rollout = Share(gpus=rollout_gpu, memory=rollout_memory, threads=CORES_PER_ENGINE)
        learner = Share(gpus=learner_gpu, memory=learner_memory, threads=min(CORES_PER_LEARNER, len(cores)))
        return Placement("cuda", (rollout,) * max(1, gpus - 1), learner, _reward_workers(spare))
    spare = len(cores) // 8
    bound = cores[: len(cores) - spare]
    half = len(bound) // 2
    parts = (bound[:half] or bound, bound[half:])
    shares = [
        Share(cores=part, threads=len(part), whole=(*part, *(core for core in bound if core not in part)))
        for part in parts
    ]
    return Placement("cpu", (shares[0],), shares[1], _reward_workers(spare))


def _reward_workers(spare_cores: int) -> int:
    return min(max(1, spare_cores), MOST_REWARD_WORKERS)
