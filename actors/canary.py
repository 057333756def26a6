"""Do the rollouts use the adapter they claim to?"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from math import exp
from statistics import fmean

from actors.messages import Group, Scores

BAND = 3.0
"""Engine and learner disagree, and the learner counts as moved, beyond this multiple of the measured noise. Measured:
noise 0.03–0.04 (mean |Δ log p|, bf16), a wrong adapter 0.42."""

MAX_NOISE = 0.2
"""Two sound implementations of one model in bf16 stay well below this mean |Δ log p|, whatever the adapter."""


class Finding(StrEnum):
    AGREES = "agrees"
    UNDECIDED = "undecided"
    DISAGREES = "disagrees"


@dataclass(frozen=True)
class Judgement:
    """disagreement: mean |log p engine − log p learner|; movement: mean |log p learner − log p base|; kl_to_base: k3
    estimate (Schulman, "Approximating KL divergence") of KL(policy ‖ base) per token; entropy: mean −log p learner,
    an estimate of the policy's. All over the probe's tokens, in nats.
    """

    finding: Finding
    disagreement: float
    movement: float
    kl_to_base: float
    entropy: float
    diagnosis: str = ""


class Canary:
    """Compares what an engine generated from probe prompts with the learner's view of the same tokens.

    The first comparison, of version 0, measures the noise between the two implementations. Whether the adapter is
    active at all can be told only once the learner itself has moved beyond the noise: until then `undecided`.
    """

    def __init__(self, noise_floor: float, noise: float | None = None) -> None:
        """noise: as measured before, None until then."""
        self._noise_floor = noise_floor
        self.noise = noise

    @property
    def band(self) -> float:
        """Largest mean |Δ log p| that counts as agreement."""
        return max(self._noise_floor, BAND * (self.noise or 0.0))

    def judge(self, groups: tuple[Group, ...], scores: tuple[tuple[Scores, ...], ...]) -> Judgement:
        engine = [p for group in groups for sample in group.samples for p in sample.logprobs]
        policy = list(chain.from_iterable(score.policy for group in scores for score in group))
        base = list(chain.from_iterable(score.base for group in scores for score in group))
        disagreement = _distance(engine, policy)
        movement = _distance(policy, base)
        kl_to_base = fmean(_k3(p, b) for p, b in zip(policy, base, strict=True))
        entropy = -fmean(policy)
        if self.noise is None:
            self.noise = min(disagreement, MAX_NOISE / BAND)
        if disagreement > self.band:
            return Judgement(
                Finding.DISAGREES,
                disagreement,
                movement,
                kl_to_base,
                entropy,
                self._diagnose(groups, engine, base, disagreement),
            )
        finding = Finding.AGREES if movement > self.band else Finding.UNDECIDED
        return Judgement(finding, disagreement, movement, kl_to_base, entropy)

    def _diagnose(self, groups: tuple[Group, ...], engine: list[float], base: list[float], disagreement: float) -> str:
        name = groups[0].adapter.name if groups[0].adapter else "the base model"
        seen = (
            f"the rollouts' log-probabilities differ from the learner's by {disagreement:.3f} on average for {name}, "
            f"{self.band:.3f} is the limit"
        )
        if _distance(engine, base) <= self.band:
            return f"{seen}; they equal the base model's: the adapter is not applied"
        return f"{seen}; they do not equal the base model's either: a wrong version, scale or module set is served"


def _distance(left: list[float], right: list[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(left, right, strict=True))


def _k3(policy: float, base: float) -> float:
    difference = max(-20.0, min(20.0, base - policy))
    return exp(difference) - difference - 1.0
