"""The adapter check of engines at work: do they use the version they claim to, and does the adapter change anything?"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from math import expm1, fsum, isfinite
from operator import mul
from statistics import fmean
from typing import NamedTuple

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


class View(NamedTuple):
    """An engine's responses under an adapter, and log-probabilities of their tokens: the engine's, and the learner's
    under its policy, its base model and its reference.
    """

    responses: Responses
    engine: list[float]
    policy: list[float]
    base: list[float]
    reference: list[float]

    @property
    def off(self) -> float:
        """The engine's distance from the learner's policy."""
        return distance(self.engine, self.policy)


def view_of(responses: Responses, scores: Sequence[Scores]) -> View:
    policy, base, reference = (
        [*chain.from_iterable(column)]
        for column in zip(*((score.policy, score.base, score.reference or score.base) for score in scores), strict=True)
    )
    return View(responses, logprobs_of(responses), policy, base, reference)


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

    def band(self, view: View) -> float:
        """Return the largest mean |Δ log p| that counts as agreement."""
        ordinary = max(self._noise_floor, BAND * (self.noise or 0.0))
        entropy = -max(fmean(view.policy), fmean(view.engine))
        return max(ordinary, min(ordinary * entropy / ORDINARY, MAX_NOISE))

    def compare(self, responses: tuple[Responses, ...], scores: Iterable[tuple[Scores, ...]]) -> dict[str, float]:
        """Compare each engine's responses under one adapter with the learner's scores, which come in the same order.

        Return the metrics of the most different engine; `decided` is 0 until a wrong adapter would show. Raises Halted
        if some engine and the learner disagree.
        """
        rest = iter(scores)
        views = [view_of(engine, [*chain.from_iterable(islice(rest, len(engine)))]) for engine in responses]
        if self.noise is None:
            unapplied = (distance(view.engine, view.base) for view in views)
            self.noise = min(*(view.off for view in views), *unapplied, MAX_NOISE / BAND)
        bands = [self.band(view) for view in views]
        excess = [view.off / band for view, band in zip(views, bands, strict=True)]
        worst = excess.index(max(excess))
        view, band = views[worst], bands[worst]
        previous, self._previous = self._previous[worst] if self._previous else None, responses
        if excess[worst] > 1.0:
            who = "the rollouts" if min(excess) > 1.0 else f"rollout-{worst}, unlike the others,"
            raise Halted(f"adapter check: {diagnosis(who, view, band, previous)}")
        movement = distance(view.policy, view.base)
        k3 = fmean(expm1(r - p) - (r - p) for p, r in zip(view.policy, view.reference, strict=True))
        return {
            "adapter_check/disagreement": view.off,
            "adapter_check/movement": movement,
            "adapter_check/entropy": -fmean(view.policy),
            "adapter_check/decided": float(movement > band),
            "policy/kl_to_base": k3,  # the estimate of Schulman, "Approximating KL divergence", per token
        }


def diagnosis(who: str, view: View, band: float, previous: Responses | None) -> str:
    """Return the likely cause of an engine's disagreement. band: the largest that counts as agreement. previous: the
    engine's responses under the version before.
    """
    name, off = f"version {view.responses[0].version}", view.off
    if not isfinite(off):
        whose = "the learner" if all(map(isfinite, view.engine)) else who
        return f"the log-probabilities of {whose} are not finite for {name}: its weights are broken or overflow"
    finding = (
        f"the log-probabilities of {who} differ from the learner's by {off:.3f} on average for "
        f"{name} (the limit is {band:.3f})"
    )
    if distance(view.engine, view.base) < off / 2:
        return f"{finding}; they equal the base model's: the adapter is not applied"
    same_words = previous and tokens_of(view.responses) == tokens_of(previous)
    if previous and same_words and distance(view.engine, logprobs_of(previous)) < SAME:
        return f"{finding}; they are those of version {previous[0].version}: it, or its cache, is still served"
    learned, served = ([p - b for p, b in zip(under, view.base, strict=True)] for under in (view.policy, view.engine))
    pairs = (learned, served), (learned, learned), (served, served)
    along, due, size = (sum(map(mul, *pair)) for pair in pairs)
    if along <= 0 or along**2 < ALIGNED * due * size:
        return f"{finding}; they are not the base model's either: the weights of another adapter or model are served"
    if along > due:
        return f"{finding}; the change from the base model is {along / due:.1f} times the learner's: too large a scale"
    return (
        f"{finding}; {along / due:.0%} of the learner's change arrives: an older version, too small a scale, or a "
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
