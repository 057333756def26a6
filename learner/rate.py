"""The learning rate of an update: its schedule, and its steering by how far the policy moves."""

import math
from dataclasses import dataclass

from microbudget_rl.conf.schema import LearnerConfig

STRIDE = 1.5
BAND = 2.0
"""Factor by which one batch changes the rate, and by which its KL must miss the target: those of RSL-RL's adaptive
schedule (Rudin et al., arXiv 2109.11978), which has steered PPO for robots since."""

FARTHEST = 32.0
"""Largest factor between the steered rate and `learner.learning_rate`, our choice: rates for one task differ by 25."""


def schedule_factor(config: LearnerConfig, update: int, progress: float, updates: int | None = None) -> float:
    """Return the factor of `learner.learning_rate` in update number `update`, from 0.

    Warm-up multiplies the schedule by (update + 1) / (warmup_updates + 1), up to 1, so every update has an effect. It
    takes a quarter of the updates at most. progress: fraction of the budget that is spent. updates: budget.updates.
    """
    length = config.warmup_updates if updates is None else min(config.warmup_updates, updates // 4)
    warmup = min(1.0, (update + 1) / (length + 1))
    remaining = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": (1.0 + math.cos(math.pi * progress)) / 2,
    }[config.schedule]
    return warmup * (config.final_rate + (1.0 - config.final_rate) * remaining)


@dataclass
class Steering:
    """Steers the learning rate towards updates that each move the policy by a KL divergence: a pure state machine.

    Stale samples show the movement at no cost: the engine's probabilities are those of an earlier version. The KL grows
    as the square of the rate, so the target is for a schedule's factor of 1.

    factor: of the rate. noise: the KL of samples that are not stale, by rounding. last: schedule's factor before.
    """

    factor: float = 1.0
    noise: float = 0.0
    last: float = 0.0

    def see(self, kl: float, behind: float, target: float) -> None:
        """Learn from a batch. kl: KL(engine ‖ learner) in nats per token. behind: its mean staleness in versions.

        What rounding could explain changes nothing.
        """
        if not behind:
            self.noise = kl
            return
        moved, due = (kl - self.noise) / behind, target * self.last**2
        if moved > max(due * BAND, self.noise):
            self.factor = max(self.factor / STRIDE, 1 / FARTHEST)
        elif moved < due / BAND > self.noise:
            self.factor = min(self.factor * STRIDE, FARTHEST)
