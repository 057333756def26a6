"""The policy-gradient loss of a batch and the correction for the mismatch between engine and learner.

A batch gets one optimizer step, so the learner's "old" log-probabilities are the current ones, detached: the
importance ratio of PPO is 1 everywhere, only its gradient counts, and clipping could not act.
"""

import math

from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to ±20 before the exponential: e^20 is far beyond any cap, and finite in every dtype."""


def importance_weights(old: Tensor, engine: Tensor, cap: float) -> Tensor:
    """Token-level truncated importance weights min(exp(old − engine), cap) (Yao et al. 2025, "TIS"; cap 2 there).

    old, engine: float [t], natural-log probabilities of the sampled tokens in learner and engine. No gradient.
    """
    return (old.detach() - engine).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().clamp(max=cap)


def policy_loss(logprobs: Tensor, engine: Tensor, advantages: Tensor, tokens: int, cap: float) -> Tensor:
    """−Σ w · A · exp(θ − old) / tokens: the part of some tokens in the token-mean loss of the whole batch.

    logprobs (θ, with gradient), engine, advantages: float [t]. tokens: response tokens in the whole batch, those of
    masked and zero-advantage samples included, so that the parts of any split add up to the same loss. Scalar.
    """
    ratio = (logprobs - logprobs.detach()).exp()
    return -(importance_weights(logprobs, engine, cap) * advantages * ratio).sum() / tokens


def mismatch(old: Tensor, engine: Tensor, cap: float) -> dict[str, float]:
    """How far learner and engine disagree about sampled tokens; old, engine: float [t], t ≥ 1.

    abs_mean, p99 (nearest rank), max: of |old − engine| in nats. effective_share: (Σw)² / (t · Σw²), the effective
    sample size of the truncated weights as a share of t. truncated: share of tokens whose weight the cap cut.
    """
    delta = (old - engine).abs()
    weights = importance_weights(old, engine, cap)
    return {
        "abs_mean": delta.mean().item(),
        "p99": delta.kthvalue(math.ceil(0.99 * delta.numel())).values.item(),
        "max": delta.max().item(),
        "effective_share": (weights.sum() ** 2 / (weights.numel() * (weights**2).sum())).item(),
        "truncated": ((old - engine).exp() > cap).double().mean().item(),
    }
