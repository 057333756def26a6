"""Checks after every swap that the engines use the adapter they claim to. Settings and metrics call it the canary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from math import exp, inf, isfinite
from statistics import fmean

from actors.adapter_check.probes import Answers, logprobs_of
from actors.errors import Halted
from actors.messages import Scores
from actors.protocols import Learner

BAND = 3.0
"""Engine and learner disagree, and the learner counts as moved, beyond this multiple of the measured noise. Measured:
noise 0.03–0.04 (mean |Δ log p|, bf16), a wrong adapter 0.42."""

SAME_DIRECTION = 0.5
"""Share of the engine's squared distance from the base model that has to lie along the learner's for it to count as the
same change, too strong or too weak."""

SAME = 1e-3
"""Log-probabilities that differ by less come from the same weights; a batch of other requests moves them a little."""

MAX_NOISE = 0.2
"""Two sound implementations of one model in bf16 stay well below this mean |Δ log p|, whatever the adapter."""


class Finding(StrEnum):
    AGREES = "agrees"
    UNDECIDED = "undecided"
    DISAGREES = "disagrees"


@dataclass(frozen=True)
class Comparison:
    """The engine that differs most from the learner, over the tokens of its answers, in nats.

    disagreement: mean |log p engine − log p learner|.
    movement: mean |log p learner − log p base|.
    kl_to_base: k3 estimate (Schulman, "Approximating KL divergence") of KL(policy ‖ base) per token.
    entropy: mean −log p learner, an estimate of the policy's.
    diagnosis: the likely cause of a disagreement.
    """

    finding: Finding
    disagreement: float
    movement: float
    kl_to_base: float
    entropy: float
    diagnosis: str = ""


class SwapCheck:
    """Compares what engines generated from probe prompts with the learner's log-probabilities of the same tokens.

    The first comparison, of version 0, measures the noise between the two implementations. Whether the adapter is
    active at all can be told only once the learner itself has moved beyond the noise: until then `undecided`.
    """

    def __init__(self, noise_floor: float, noise: float | None = None) -> None:
        """noise: as measured before a resume, mean |Δ log p|."""
        self._noise_floor = noise_floor
        self.noise = noise
        self._previous: tuple[Answers, ...] = ()

    @property
    def band(self) -> float:
        """Largest mean |Δ log p| that counts as agreement."""
        return max(self._noise_floor, BAND * (self.noise or 0.0))

    async def check(self, learner: Learner, answers: tuple[Answers, ...]) -> Comparison:
        """Compare all engines' answers under one adapter with the learner's view; raise Halted if they disagree."""
        scores = iter(await learner.score(tuple(chain.from_iterable(answers))))
        comparison = self.compare(answers, tuple(tuple(next(scores) for _ in engine) for engine in answers))
        if comparison.finding is Finding.DISAGREES:
            raise Halted(f"canary: {comparison.diagnosis}")
        return comparison

    def compare(self, answers: tuple[Answers, ...], scores: tuple[tuple[tuple[Scores, ...], ...], ...]) -> Comparison:
        """Answers and the learner's scores of them, by engine."""
        views = [_View.of(*engine) for engine in zip(answers, scores, strict=True)]
        if self.noise is None:
            self.noise = min(*(view.disagreement for view in views), MAX_NOISE / BAND)
        worst = max(range(len(views)), key=lambda number: views[number].disagreement)
        view, previous = views[worst], self._previous[worst] if self._previous else None
        self._previous = answers
        movement = distance(view.policy, view.base)
        finding, diagnosis = Finding.AGREES if movement > self.band else Finding.UNDECIDED, ""
        if view.disagreement > self.band:
            finding = Finding.DISAGREES
            all_of_them = all(other.disagreement > self.band for other in views)
            who = "the rollouts" if all_of_them else f"rollout-{worst}, unlike the others,"
            diagnosis = self._diagnose(who, answers[worst], previous, view)
        kl_to_base = fmean(map(_k3, view.policy, view.base))
        return Comparison(finding, view.disagreement, movement, kl_to_base, -fmean(view.policy), diagnosis)

    def _diagnose(self, who: str, answers: Answers, previous: Answers | None, view: "_View") -> str:
        """Name the likely cause, from how the engine's change against the base model compares with the learner's."""
        name = _adapter_of(answers)
        if not isfinite(view.disagreement):
            whose = "the learner" if all(map(isfinite, view.engine)) else who
            return f"the log-probabilities of {whose} are no numbers for {name}: its weights are broken or overflow"
        seen = (
            f"the log-probabilities of {who} differ from the learner's by {view.disagreement:.3f} on average for "
            f"{name}, {self.band:.3f} is the limit"
        )
        if distance(view.engine, view.base) < view.disagreement / 2:
            return f"{seen}; they equal the base model's: the adapter is not applied"
        if previous is not None and _same(answers, previous):
            return (
                f"{seen}; the answers are word for word those of {_adapter_of(previous)}: that version, or its cache, "
                "is still served"
            )
        along, strength = view.alignment()
        if along < SAME_DIRECTION:
            return (
                f"{seen}; they do not equal the base model's either: the weights of another adapter or model are served"
            )
        if strength > 1:
            return f"{seen}; the change against the base model is {strength:.1f} times the learner's: too large a scale"
        return (
            f"{seen}; {strength:.0%} of the learner's change arrives: an older version, too small a scale, or a type "
            "of module without its adapter"
        )


@dataclass(frozen=True)
class _View:
    """Log-probabilities of all tokens of one engine's answers: its own, the learner's, and the base model's."""

    engine: list[float]
    policy: list[float]
    base: list[float]

    @classmethod
    def of(cls, answers: Answers, scores: Iterable[tuple[Scores, ...]]) -> "_View":
        samples = list(chain.from_iterable(scores))
        return cls(
            engine=logprobs_of(answers),
            policy=list(chain.from_iterable(sample.policy for sample in samples)),
            base=list(chain.from_iterable(sample.base for sample in samples)),
        )

    @property
    def disagreement(self) -> float:
        return distance(self.engine, self.policy)

    def alignment(self) -> tuple[float, float]:
        """Return of the engine's change against the base model, the share (of squares) along the learner's change, and
        how many times the learner's that part is (least squares).
        """
        changes = [(e - b, p - b) for e, p, b in zip(self.engine, self.policy, self.base, strict=True)]
        cross, own, learner = (sum(terms) for terms in zip(*((e * p, e * e, p * p) for e, p in changes), strict=True))
        if learner == 0 or cross <= 0:
            return 0.0, 0.0
        return cross * cross / (own * learner), cross / learner


def distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the mean |Δ log p|; infinite where that is not a number, so that it is within no limit."""
    mean = fmean(abs(a - b) for a, b in zip(left, right, strict=True))
    return mean if isfinite(mean) else inf


def _adapter_of(answers: Answers) -> str:
    return answers[0].adapter.name if answers[0].adapter else "the base model"


def _same(answers: Answers, previous: Answers) -> bool:
    """Whether two versions gave the same answers with all but the same probabilities."""
    pairs = [(a.samples[0], b.samples[0]) for a, b in zip(answers, previous, strict=True)]
    return all(a.token_ids == b.token_ids for a, b in pairs) and all(
        abs(x - y) < SAME for a, b in pairs for x, y in zip(a.logprobs, b.logprobs, strict=True)
    )


def _k3(policy: float, base: float) -> float:
    difference = max(-20.0, min(20.0, base - policy))
    return exp(difference) - difference - 1.0
