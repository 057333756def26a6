"""The loss of a batch, from log-probabilities to one number; read it top to bottom against the papers.

    L = Σ_t c_t · ( −w_t · S_t + kl · k3_t − entropy · H_t )

over the response tokens t of all samples: c_t aggregates (`token_shares`), w_t corrects for the engine
(`learner.mismatch`), S_t is the surrogate of the advantage A_t and the ratio ρ_t of new to old probability. Tensors are
flat: the t tokens of b whole responses, one response after the other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from conf.schema import AlgorithmConfig
from learner.mismatch import MAX_LOG_RATIO, correction_weights, k3, sequence_sums


@dataclass(frozen=True)
class Totals:
    """Of the whole batch, skipped and masked samples included: the parts of any split add up to the same loss.

    samples: their number. tokens: of all their responses. limit: rollout.max_response_tokens.
    """

    samples: int
    tokens: int
    limit: int


@dataclass(frozen=True)
class Observed:
    """What is fixed while the policy moves. engine, old, advantages: float [t]. lengths: int64 [b], each at least 1.
    base: float [t], log-probabilities under the base model; None without a KL term.

    old: log-probabilities before the first step; the engine's in bypass.
    """

    engine: Tensor
    old: Tensor
    advantages: Tensor
    lengths: Tensor
    base: Tensor | None = None


def log_ratios(logprobs: Tensor, old: Tensor, lengths: Tensor, level: str) -> Tensor:
    """log ρ, float [t], clamped to ±20; beyond, there is no gradient.

    token: θ − old (PPO). sequence: the mean of θ − old over the response (GSPO, arXiv 2507.18071, eq. 7), at each of
    its tokens with the gradient of that token's θ (GSPO-token, eq. 14; the same gradient, as A is one per response).
    """
    difference = (logprobs - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if level == "token":
        return difference
    mean = (sequence_sums(logprobs.detach() - old, lengths) / lengths).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return mean.repeat_interleave(lengths) + logprobs - logprobs.detach()


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, low: float | None, high: float | None, dual: float | None
) -> Tensor:
    """min(ρA, clip(ρ, 1 − low, 1 + high) A) (PPO, arXiv 1707.06347, eq. 7; low ≠ high: DAPO, arXiv 2503.14476, eq. 8).

    dual: where A < 0, no less than dual · A (dual-clip PPO, arXiv 1912.09729, eq. 5).
    """
    surrogate = torch.minimum(ratio * advantages, clip(ratio, low, high) * advantages)
    if dual is None:
        return surrogate
    return torch.where(advantages < 0, torch.maximum(surrogate, dual * advantages), surrogate)


def cispo_surrogate(
    ratio: Tensor, logprobs: Tensor, advantages: Tensor, low: float | None, high: float | None
) -> Tensor:
    """sg(clip(ρ)) · A · θ (CISPO, MiniMax-M1, arXiv 2506.13585, eq. 4): every token keeps a gradient."""
    return clip(ratio, low, high).detach() * advantages * logprobs


def clip(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    """ρ within 1 − low … 1 + high; None for no bound."""
    lowest = 0.0 if low is None else 1 - low
    return ratio.clamp(lowest, None if high is None else 1 + high)


def token_shares(lengths: Tensor, totals: Totals, aggregation: str) -> Tensor:
    """c, float64 [t], what each token counts.

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
    """L of some of a batch's samples, a scalar. logprobs (θ), entropy: float [t], natural-log, with gradient."""
    advantages, lengths = observed.advantages, observed.lengths
    ratio = log_ratios(logprobs, observed.old, lengths, algorithm.ratio).exp()
    if algorithm.surrogate == "cispo":
        surrogate = cispo_surrogate(ratio, logprobs, advantages, algorithm.clip_low, algorithm.clip_high)
    else:
        surrogate = clipped_surrogate(ratio, advantages, algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip)
    weights = correction_weights(observed.old, observed.engine, lengths, algorithm.mismatch)
    loss = -weights * surrogate
    if observed.base is not None:
        loss = loss + algorithm.kl * k3(logprobs, observed.base)
    if algorithm.entropy:
        loss = loss - algorithm.entropy * entropy
    return (token_shares(lengths, totals, algorithm.aggregation).to(loss) * loss).sum()


@torch.no_grad()
def clipped_tokens(algorithm: AlgorithmConfig, logprobs: Tensor, observed: Observed) -> dict[str, float]:
    """How many tokens the bounds acted on: low, high and dual clip.

    The surrogate of PPO takes a clipped ratio only where that lowers it; CISPO's weight is clipped at any advantage.
    """
    ratio = log_ratios(logprobs, observed.old, observed.lengths, algorithm.ratio).exp()
    always = algorithm.surrogate == "cispo"
    falls, rises = observed.advantages < 0, observed.advantages > 0
    counts = dict.fromkeys(("low", "high", "dual"), 0.0)
    if algorithm.clip_low is not None:
        counts["low"] = ((ratio < 1 - algorithm.clip_low) & (falls | always)).sum().item()
    if algorithm.clip_high is not None:
        counts["high"] = ((ratio > 1 + algorithm.clip_high) & (rises | always)).sum().item()
    if algorithm.dual_clip is not None:
        counts["dual"] = ((ratio > algorithm.dual_clip) & falls).sum().item()
    return counts
