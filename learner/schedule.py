"""The learning rate of an update."""

import math

from conf.errors import BadInput
from conf.schema import LearnerConfig


def learning_rate(config: LearnerConfig, update: int, progress: float) -> float:
    """Learning rate of update number `update` (from 0) when `progress` in [0, 1] of the budget is spent.

    Warm-up multiplies the schedule by (update + 1) / (warmup_updates + 1), up to 1: no update is without effect.
    """
    warmup = min(1.0, (update + 1) / (config.warmup_updates + 1))
    match config.schedule:
        case "constant":
            remaining = 1.0
        case "linear":
            remaining = 1.0 - progress
        case "cosine":
            remaining = (1.0 + math.cos(math.pi * progress)) / 2
        case unknown:
            raise BadInput(f"learner.schedule={unknown}: there is no such schedule; use constant, linear or cosine")
    return config.learning_rate * warmup * (config.final_rate + (1.0 - config.final_rate) * remaining)
