"""The mismatch between the engine that samples tokens and the learner that trains on them.

Both hold the same weights, up to staleness, but compute with different kernels. If the learner's probabilities are the
old policy, the engine's samples are reweighted as if the learner had sampled them.
"""

import math

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to ±20 before the exponential: e^20 is far beyond any clip, and finite in every dtype."""

TOKEN_CAP = 2.0
"""Cap of token_tis (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training")."""

SEQUENCE_CAP = 3.0
"""Cap of sequence_mask: TRL's default."""

ICEPOP_BAND = (0.5, 5.0)
"""Accepted weights of icepop (Ring-1T, arXiv 2510.18855)."""

MAX_WEIGHT = {"token_tis": TOKEN_CAP, "sequence_mask": SEQUENCE_CAP, "icepop": ICEPOP_BAND[1], "bypass": 1.0}
"""The largest weight of each method."""


def correction_weights(old: Tensor, engine: Tensor, lengths: Tensor, method: str) -> Tensor:
    """Return the loss weights of the tokens of b whole responses, by `algorithm.mismatch`; float [t], no gradient.

    With ρ = exp(old − engine) of a token and R = exp Σ (old − engine) of its response:
    token_tis: min(ρ, 2). sequence_mask: R if R ≤ 3, else 0. icepop: ρ if 0.5 ≤ ρ ≤ 5, else 0. bypass: 1.
    old, engine: float [t], natural-log probabilities in learner and engine. lengths: int64 [b], tokens of a response.
    """
    delta = old.detach() - engine
    match method:
        case "token_tis":
            return bounded_exp(delta).clamp(max=TOKEN_CAP)
        case "sequence_mask":
            weights = bounded_exp(sequence_sums(delta, lengths))
            return weights.where(weights <= SEQUENCE_CAP, 0.0).repeat_interleave(lengths)
        case "icepop":
            weights = bounded_exp(delta)
            return weights.where((weights >= ICEPOP_BAND[0]) & (weights <= ICEPOP_BAND[1]), 0.0)
        case "bypass":
            return torch.ones_like(delta)
        case unknown:
            raise ValueError(f"algorithm.mismatch={unknown}")


def describe_mismatch(policy: Tensor, engine: Tensor, lengths: Tensor, method: str) -> dict[str, float]:
    """Return how much learner and engine disagree about sampled tokens; policy, engine: float [t], t ≥ 1.

    abs_mean, p99 (nearest rank), max: of |policy − engine| in nats. k3: estimate of KL(engine ‖ learner) per token.
    ess: (Σw)² / (t · Σw²) of the weights in the loss, the effective sample size as a fraction of t; in bypass, of the
    ratio itself. clipped, masked: fractions of tokens whose weight was cut, or set to 0.
    """
    delta = policy - engine
    size = delta.abs()
    ratio = bounded_exp(delta)
    weights = ratio if method == "bypass" else correction_weights(policy, engine, lengths, method)
    return {
        "abs_mean": size.mean().item(),
        "p99": size.kthvalue(math.ceil(0.99 * size.numel())).values.item(),
        "max": size.max().item(),
        "k3": k3(engine, policy).mean().item(),
        "ess": (weights.sum() ** 2 / (weights.numel() * (weights**2).sum()).clamp(min=1e-30)).item(),
        "clipped": ((ratio > TOKEN_CAP) & (weights == TOKEN_CAP)).double().mean().item(),
        "masked": (weights == 0).double().mean().item(),
    }


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """Return exp(d) − d − 1 with d = reference − policy: Schulman's estimate of KL(policy ‖ reference).

    It is never negative, except for rounding: expm1 keeps that within one unit of d's last place, while exp(d) − d − 1
    is −6e-8 at many small d in float32. Beyond ±20 d counts as ±20.
    policy, reference: float [t], log-probabilities of tokens that the policy sampled (GRPO, arXiv 2402.03300, eq. 4)
    """
    difference = (reference - policy).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference


def bounded_exp(log_ratios: Tensor) -> Tensor:
    return log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def sequence_sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Return the sum over each response: float [t] to [b]; lengths: int64 [b], each at least 1, adding up to t."""
    owners = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    return values.new_zeros(len(lengths)).index_add(0, owners, values)
