"""The adapter check of engines at work: do they use the version they claim to, and does the adapter change anything?"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from math import expm1, fsum, isfinite
from operator import gt, mul
from statistics import fmean

from microbudget_rl.actors.adapter_check.prompts import SAME, CheckPrompts, Responses, distance, logprobs_of, tokens_of
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import AdapterRef, Problem, Scores
from microbudget_rl.actors.protocols import Engine
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config

BAND = 3.0
"""Multiple of the measured noise beyond which engine and learner disagree, and the learner has moved. Measured: noise
0.03–0.04 (mean |Δ log p|, bf16), a wrong adapter 0.42."""

ALIGNED = 0.5
"""Least fraction of the engine's squared change from the base model that lies along the learner's change, if both are
the same change at another strength."""

MAX_NOISE = 0.2
"""Two sound implementations of one model in bf16 stay below this mean |Δ log p|, whatever the adapter."""

ORDINARY = 2.0
"""Entropy from which the noise grows, nats per token: unlikely tokens are less certain. Measured in one run: 0.01 at
0.4 nats, 0.04 to 0.05 up to 2.4, 0.07 and 0.13 at 3.4."""


class CheckAfterSync:
    """Compares the engines' log-probabilities of their own responses with the learner's of the same tokens.

    The first comparison, of version 0, measures the noise between the two implementations: the engines' distance from
    the learner's policy or, if they do not apply an adapter that has moved, from its base model. Whether the adapter is
    active at all is undecided until the learner itself has moved beyond the noise.
    """

    def __init__(self, noise_floor: float, noise: float | None = None) -> None:
        """noise: as measured before a resume, mean |Δ log p|."""
        self._noise_floor = noise_floor
        self.noise = noise
        self._previous: tuple[Responses, ...] = ()

    def band(self, responses: Responses, policy: list[float]) -> float:
        """Return the largest mean |Δ log p| that counts as agreement. policy: the learner's log-probabilities."""
        ordinary = max(self._noise_floor, BAND * (self.noise or 0.0))
        entropy = -max(fmean(policy), fmean(logprobs_of(responses)))
        return max(ordinary, min(ordinary * entropy / ORDINARY, MAX_NOISE))

    def compare(self, responses: tuple[Responses, ...], scores: Iterable[tuple[Scores, ...]]) -> dict[str, float]:
        """Compare each engine's responses under one adapter with the learner's scores, which come in the same order.

        Return the metrics of the most different engine; `decided` is 0 until a wrong adapter would show. Raises Halted
        if some engine and the learner disagree.
        """
        rest = iter(scores)
        views = [list(chain.from_iterable(islice(rest, len(engine)))) for engine in responses]
        policies = [[p for score in view for p in score.policy] for view in views]
        off = [distance(logprobs_of(own), policy) for own, policy in zip(responses, policies, strict=True)]
        if self.noise is None:
            bases = ([p for score in view for p in score.base] for view in views)
            unapplied = (distance(logprobs_of(own), base) for own, base in zip(responses, bases, strict=True))
            self.noise = min(*off, *unapplied, MAX_NOISE / BAND)
        bands = [self.band(*pair) for pair in zip(responses, policies, strict=True)]
        worst = max(range(len(off)), key=lambda engine: off[engine] / bands[engine])
        policy, base = policies[worst], [p for score in views[worst] for p in score.base]
        previous, self._previous = self._previous[worst] if self._previous else None, responses
        band = bands[worst]
        if off[worst] > band:
            who = "the rollouts" if all(map(gt, off, bands)) else f"rollout-{worst}, unlike the others,"
            raise Halted(f"adapter check: {self._diagnose(who, responses[worst], previous, policy, base)}")
        movement = distance(policy, base)
        reference = [p for score in views[worst] for p in score.reference or score.base]
        k3 = fmean(expm1(r - p) - (r - p) for p, r in zip(policy, reference, strict=True))
        return {
            "adapter_check/disagreement": off[worst],
            "adapter_check/movement": movement,
            "adapter_check/entropy": -fmean(policy),
            "adapter_check/decided": float(movement > band),
            "policy/kl_to_base": k3,  # the estimate of Schulman, "Approximating KL divergence", per token
        }

    def _diagnose(
        self, who: str, responses: Responses, previous: Responses | None, policy: list[float], base: list[float]
    ) -> str:
        """Return the likely cause of an engine's disagreement. policy, base: the learner's log-probabilities."""
        name, engine = f"version {responses[0].version}", logprobs_of(responses)
        off = distance(engine, policy)
        if not isfinite(off):
            whose = "the learner" if all(map(isfinite, engine)) else who
            return f"the log-probabilities of {whose} are not finite for {name}: its weights are broken or overflow"
        seen = (
            f"the log-probabilities of {who} differ from the learner's by {off:.3f} on average for "
            f"{name} (the limit is {self.band(responses, policy):.3f})"
        )
        if distance(engine, base) < off / 2:
            return f"{seen}; they equal the base model's: the adapter is not applied"
        same_words = previous and tokens_of(responses) == tokens_of(previous)
        if previous and same_words and distance(engine, logprobs_of(previous)) < SAME:
            return f"{seen}; they are those of version {previous[0].version}: it, or its cache, is still served"
        learned, served = ([p - b for p, b in zip(each, base, strict=True)] for each in (policy, engine))
        pairs = (learned, served), (learned, learned), (served, served)
        along, due, size = (sum(map(mul, *pair)) for pair in pairs)
        if along <= 0 or along**2 < ALIGNED * due * size:
            return f"{seen}; they are not the base model's either: the weights of another adapter or model are served"
        if along > due:
            return f"{seen}; the change from the base model is {along / due:.1f} times the learner's: too large a scale"
        return (
            f"{seen}; {along / due:.0%} of the learner's change arrives: an older version, too small a scale, or a "
            "type of module without its adapter"
        )


async def check_before_evaluation(
    config: Config, engine: Engine, adapter: AdapterRef, problems: Sequence[Problem]
) -> None:
    """Raise BadInput if some engine responds under an adapter as it does without one."""
    if await without_effect(CheckPrompts(config, problems), engine, adapter):
        raise BadInput(f"adapter={adapter.path}: an engine's responses do not change with it: name another adapter")


async def without_effect(prompts: CheckPrompts, engine: Engine, adapter: AdapterRef) -> bool:
    """Whether some engine responds under an adapter as it does without one."""
    base, again, adapted = [await prompts.ask(engine, policy) for policy in (None, None, adapter)]
    return any(unchanged(*responses) for responses in zip(base, again, adapted, strict=True))


def unchanged(base: Responses, again: Responses, adapted: Responses) -> bool:
    """Whether an engine's responses differ under an adapter no more than the base model's differ when repeated.

    All are to the same prompts with the same seeds.
    """
    if tokens_of(adapted) != tokens_of(base) == tokens_of(again):
        return False
    return difference(base, adapted) <= max(SAME, BAND * difference(base, again))


def difference(left: Responses, right: Responses) -> float:
    """Return the mean |Δ log p| over the tokens before two responses part; 0 if they part at once."""
    deltas = []
    for group, other_group in zip(left, right, strict=True):
        a, b = group.samples[0], other_group.samples[0]
        for token, other, p, q in zip(a.token_ids, b.token_ids, a.logprobs, b.logprobs, strict=False):
            if token != other:
                break
            deltas.append(abs(p - q))
    return fsum(deltas) / len(deltas) if deltas else 0.0
