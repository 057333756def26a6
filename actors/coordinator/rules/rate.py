"""The learning rate of an update: its schedule, and its limit by how far updates move the policy."""

import math
from collections import deque
from statistics import median_high

from microbudget_rl.actors.messages import Measured
from microbudget_rl.actors.storage.documents import RateLimitState
from microbudget_rl.conf.schema import LearnerConfig

RECENT = 5
"""Updates whose median says how far the next one moves the policy: single batches differ by a factor of ten."""

FEWEST = 3
"""Fewest of them that limit the rate: the median of two is one of them."""

NOTHING_SEEN = RateLimitState()


def learning_rate(config: LearnerConfig, update: int, progress: float, updates: int | None = None) -> float:
    """Return the learning rate of update number `update`, from 0.

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
    return config.learning_rate * warmup * (config.final_rate + (1.0 - config.final_rate) * remaining)


class RateLimit:
    """Keeps updates from moving the policy further than a KL divergence allows: a pure state machine.

    Stale samples show the movement at no cost: the engine's probabilities are those of an earlier version. It is taken
    to grow as the square of the rate. last: the rate of the last update; 0 if it changed nothing.
    """

    def __init__(self, state: RateLimitState = NOTHING_SEEN) -> None:
        self.last = state.last
        self._recent = deque(state.recent, maxlen=RECENT)
        self._noise = state.noise

    @property
    def state(self) -> RateLimitState:
        return RateLimitState(recent=list(self._recent), noise=self._noise, last=self.last)

    def observe(self, measured: Measured) -> None:
        """Learn from a batch."""
        if not math.isfinite(measured.kl):  # as its loss, which is skipped
            return
        if not measured.staleness:
            self._noise = measured.kl
        elif scale := measured.staleness * self.last**2:
            moved = measured.kl - self._noise
            # Within twice the rounding, the rounding is only a bound: it neither starts nor releases the limit.
            bound = min(self._noise / scale, self._usual)
            self._recent.append(moved / scale if moved > self._noise else bound)

    def rate_fraction(self, peak: float, most: float) -> float:
        """Return the fraction of a peak learning rate that moves the policy by a KL of at most `most`."""
        return min(1.0, math.sqrt(most / self._usual) / peak) if self._usual > 0 else 1.0

    @property
    def _usual(self) -> float:
        return median_high(self._recent) if len(self._recent) >= FEWEST else 0.0
