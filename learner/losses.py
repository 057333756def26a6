"""The loss of a batch, from log-probabilities to one number; read it top to bottom against the papers.

    L = Σ_t c_t · ( −w_t · S_t + kl · D_t − entropy · H_t )

over the response tokens t of all samples: c_t aggregates (`token_weights`), w_t corrects for the engine
(`learner.mismatch`), S_t is the surrogate of the advantage A_t and the ratio ρ_t of new to old probability, D_t the
penalty on moving away from the reference. Tensors are flat: the t tokens of b whole responses, one response after the
other.

No token moves the weights without bound: |∂L/∂θ_t| ≤ c_t · (w · m · |A_t| + kl · s) whatever the probabilities, with w
the `MAX_WEIGHT` of the correction, m the bound on the surrogate's slope that `conf.checks.slope_bound` derives from the
settings and `algorithm_faults` insists on, and s the `MAX_PENALTY_SLOPE`. Past a log-ratio of ±20 a clipped surrogate
has no slope at all.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microbudget_rl.conf.schema import AlgorithmConfig
from microbudget_rl.learner.mismatch import MAX_LOG_RATIO, correction_weights, sequence_sums

TANGENT_FROM = 2.5
"""Nats below the reference's log-probability at which the KL penalty becomes a straight line: k3's own slope reaches
e²⁰. verl cuts k3 at 10, which a token passes at 2.6 nats and is then no longer pulled back.
"""

MAX_PENALTY_SLOPE = math.expm1(TANGENT_FROM)
"""Largest slope of the KL penalty, 11.2; where a token has become more probable it is at most 1."""

GATE_TEMPERATURES = 1.0, 1.05
"""SAPO's τ at positive and at other advantages, from the paper: the gradient of bad samples vanishes sooner."""


@dataclass(frozen=True)
class Totals:
    """Denominators over all samples of a batch. tokens: of all responses. limit: rollout.max_response_tokens."""

    samples: int
    tokens: int
    limit: int


@dataclass(frozen=True)
class Observed:
    """The quantities that are fixed while the policy moves; log-probabilities are natural.

    engine: float [t], log-probabilities under the engine that sampled the tokens
    old: float [t], log-probabilities before the first step; the engine's in bypass
    advantages: float [t]
    lengths: int64 [b], tokens of each response, at least 1
    reference: float [t], log-probabilities under `algorithm.reference`; None without a KL term
    """

    engine: Tensor
    old: Tensor
    advantages: Tensor
    lengths: Tensor
    reference: Tensor | None = None


def log_ratios(logprobs: Tensor, old: Tensor, lengths: Tensor, level: str) -> Tensor:
    """Return log ρ, float [t], clamped to ±20; beyond, there is no gradient, at either level.

    token: θ − old (PPO). sequence: the mean of θ − old over the response (GSPO, arXiv 2507.18071, eq. 7), at each of
    its tokens with the gradient of that token's θ (GSPO-token, eq. 14; the same gradient, as A is one per response).
    """
    difference = logprobs - old
    if level == "sequence":
        mean = sequence_sums(difference.detach(), lengths) / lengths
        difference = mean.repeat_interleave(lengths) + (logprobs - logprobs.detach())
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, low: float | None, high: float | None, dual: float | None
) -> Tensor:
    """Return min(ρA, clip(ρ, 1 − low, 1 + high) A) (PPO, arXiv 1707.06347, eq. 7).

    low ≠ high: DAPO, arXiv 2503.14476, eq. 8. Where A < 0 this is ρA for every ρ above 1 − low, however large. dual: no
    less than dual · A there (dual-clip PPO, arXiv 1912.09729, eq. 5).
    """
    surrogate = torch.minimum(ratio * advantages, clip(ratio, low, high) * advantages)
    if dual is None:
        return surrogate
    return torch.where(advantages < 0, torch.maximum(surrogate, dual * advantages), surrogate)


def cispo_surrogate(
    ratio: Tensor, logprobs: Tensor, advantages: Tensor, low: float | None, high: float | None
) -> Tensor:
    """Return sg(clip(ρ)) · A · θ (CISPO, MiniMax-M1, arXiv 2506.13585, eq. 4): every token keeps a gradient."""
    return clip(ratio, low, high).detach() * advantages * logprobs


def gated_surrogate(ratio: Tensor, advantages: Tensor) -> Tensor:
    """Return 4/τ · σ(τ (ρ − 1)) · A (SAPO, arXiv 2511.20347).

    With g = σ(τ (ρ − 1)) its slope in log ρ is 4 g (1 − g) ρ A: A where ρ is 1, and 0 far from there, without an edge.
    """
    positive, negative = GATE_TEMPERATURES
    tau = torch.full_like(advantages, negative).masked_fill(advantages > 0, positive)
    return 4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages


def kl_penalty(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return D, float [t]: `k3`, and its tangent where a token is TANGENT_FROM nats less probable than in it."""
    difference = reference - logprobs
    near = difference.clamp(max=TANGENT_FROM)
    return torch.expm1(near) - near + MAX_PENALTY_SLOPE * (difference - near)


def clip(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    """Return ρ within 1 − low … 1 + high; None for no bound."""
    lowest = 0.0 if low is None else 1 - low
    return ratio.clamp(lowest, None if high is None else 1 + high)


def token_weights(lengths: Tensor, totals: Totals, aggregation: str) -> Tensor:
    """Return c, float64 [t].

    token_mean: 1 / tokens (DAPO, eq. 8). sequence_mean: 1 / (samples · length of its response) (GRPO, arXiv 2402.03300,
    eq. 3). constant: 1 / (samples · limit) (Dr. GRPO, arXiv 2503.20783).
    """
    divisors = {
        "token_mean": torch.full_like(lengths, totals.tokens),
        "sequence_mean": totals.samples * lengths,
        "constant": torch.full_like(lengths, totals.samples * totals.limit),
    }
    return (1 / divisors[aggregation].double()).repeat_interleave(lengths)


def policy_loss(
    algorithm: AlgorithmConfig, totals: Totals, logprobs: Tensor, entropy: Tensor, observed: Observed
) -> Tensor:
    """Return L of some of a batch's samples, a scalar. logprobs (θ), entropy: float [t], with gradient."""
    advantages, lengths = observed.advantages, observed.lengths
    ratio = log_ratios(logprobs, observed.old, lengths, algorithm.ratio).exp()
    if algorithm.surrogate == "cispo":
        surrogate = cispo_surrogate(ratio, logprobs, advantages, algorithm.clip_low, algorithm.clip_high)
    elif algorithm.surrogate == "sapo":
        surrogate = gated_surrogate(ratio, advantages)
    else:
        surrogate = clipped_surrogate(ratio, advantages, algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip)
    weights = correction_weights(observed.old, observed.engine, lengths, algorithm.mismatch)
    loss = -weights * surrogate
    if observed.reference is not None:
        loss = loss + algorithm.kl * kl_penalty(logprobs, observed.reference)
    if algorithm.entropy:
        loss = loss - algorithm.entropy * entropy
    return (token_weights(lengths, totals, algorithm.aggregation).to(loss) * loss).sum()


def imitation_loss(logprobs: Tensor, totals: Totals) -> Tensor:
    """Return −Σ_t θ_t / tokens of some of a warm start's responses, a scalar: the mean negative log-likelihood of all
    responses' tokens, at the rollouts' temperature. logprobs (θ): float [t], with gradient.
    """
    return -logprobs.sum() / totals.tokens


@torch.no_grad()
def clipped_tokens(algorithm: AlgorithmConfig, logprobs: Tensor, observed: Observed) -> dict[str, int]:
    """Return how many tokens each bound acted on.

    PPO's surrogate takes a clipped ratio only where that lowers it; CISPO's weight is clipped at any advantage but 0.
    """
    ratio = log_ratios(logprobs, observed.old, observed.lengths, algorithm.ratio).exp()
    falls, rises = observed.advantages < 0, observed.advantages > 0
    either = (falls | rises) & (algorithm.surrogate == "cispo")
    low, high, dual = algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip
    return {
        "low": 0 if low is None else int(((ratio < 1 - low) & (falls | either)).sum()),
        "high": 0 if high is None else int(((ratio > 1 + high) & (rises | either)).sum()),
        "dual": 0 if dual is None else int(((ratio > dual) & falls).sum()),
    }
