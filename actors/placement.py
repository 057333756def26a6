"""Who gets which share of the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """One actor's part of the machine: core ids it is bound to (CPU only), or a fraction of a GPU.

    gpus: Ray's num_gpus; memory: the fraction of the card's total memory the actor may use.
    """

    cores: tuple[int, ...] = ()
    gpus: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Placement:
    """device: "cpu" or "cuda". rollouts: one share per rollout actor. learner: the learner's share."""

    device: str
    rollouts: tuple[Share, ...]
    learner: Share
    reward_workers: int
