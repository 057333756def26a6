"""Log-probabilities and entropy straight from hidden states: full logits never exist.

With z = W h / T and p = softmax(z), the log-probability of token y is z_y − log Σ exp z, and its gradient with respect
to h is ((1 − p_y) W_y − Σ_{v≠y} p_v W_v) / T; that of the entropy H = −Σ_v p_v log p_v is −Σ_v p_v (log p_v + H) W_v /
T. The forward pass computes the sums while a chunk's p exists and keeps them, one vector of the hidden size per
position and sum, so that the backward pass needs neither logits nor a second softmax. The first sum omits the target:
W_y − Σ_v p_v W_v is the same number, but in bfloat16 its two terms cancel to exactly zero for a token the model is sure
of, which could then never be unlearned.

Under a soft cap c the logits are c tanh(z / c). Each W_v above is then multiplied by the slope at its logit,
1 − tanh²(z_v / c).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Head:
    """The output head, which turns hidden states x into logits c tanh(s x Wᵀ / c).

    weight: W, [v, h], frozen, of the hidden states' dtype
    scale: s
    cap: c, None for the logits s x Wᵀ
    """

    weight: Tensor
    scale: float = 1.0
    cap: float | None = None


def head_of(base: Any) -> Head:
    """Return a model's head with the scale or the cap of logits that its configuration states."""
    stated = base.config
    scale = (getattr(stated, "logit_scale", None) or 1.0) / (getattr(stated, "logits_scaling", None) or 1.0)
    scale *= getattr(stated, "lm_head_multiplier", None) or 1.0
    return Head(base.get_output_embeddings().weight, scale, getattr(stated, "final_logit_softcapping", None))


def token_logprobs(
    hidden: Tensor, head: Head, targets: Tensor, temperature: float, chunk: int, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of `targets` and the full-vocabulary entropy, both [t], in nats after temperature.

    hidden: [t, h], at the positions that predict the targets
    targets: int64 [t]
    chunk: positions whose logits exist at a time
    entropy_gradient: gradients flow to `hidden` from the entropy too, not only from the log-probabilities

    Matmuls run in hidden's dtype, the softmax and the results in float32 (float64 for float64 input). On the CPU logits
    are rounded to hidden's dtype in between, because its matmuls have no other result type.
    """
    assert not head.weight.requires_grad  # it would get no gradient
    cap = head.cap and head.cap / temperature
    logprobs, entropy = _TokenLogprobs.apply(
        hidden, head.weight, targets, temperature / head.scale, chunk, entropy_gradient, cap
    )
    return logprobs, entropy


def divergence(hidden: Tensor, base: Tensor, head: Head, temperature: float, chunk: int) -> list[Tensor]:
    """Return the entropies of next-token distributions p and q, and KL(p ‖ q): [t] each, exact, without gradients.

    hidden, base: [t, h], last hidden states of p and q. Other arguments as in `token_logprobs`, whose memory is not
    exceeded although both distributions have logits here.
    """
    size, cap = max(chunk // 2, 1), head.cap and head.cap / temperature
    parts = []
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        logits = (_logits(x[part], head.weight, temperature / head.scale) for x in (hidden, base))
        p, q = ((z if cap is None else cap * (z / cap).tanh()).log_softmax(-1) for z in logits)
        entropies = [-torch.linalg.vecdot(x.exp(), x) for x in (p, q)]
        parts.append((*entropies, torch.linalg.vecdot(p.exp(), p - q)))
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    """Return logits in float32 (float64 for float64 input). On a GPU they are never rounded to a narrower dtype."""
    precision = torch.promote_types(hidden.dtype, torch.float32)
    if hidden.is_cuda and hidden.dtype != precision:
        logits = torch.mm(hidden, head.T, out_dtype=precision)
    else:
        logits = (hidden @ head.T).to(precision)
    return logits if temperature == 1.0 else logits.div_(temperature)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        temperature: float,
        chunk: int,
        entropy_gradient: bool,
        cap: float | None,
    ) -> tuple[Tensor, Tensor]:
        precision = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = torch.empty(len(hidden), dtype=precision, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        differentiable = ctx.needs_input_grad[0]
        # Each W is multiplied by its slope:
        others = torch.empty_like(hidden) if differentiable else None  # Σ_{v≠y} p_v W_v
        rest = torch.empty_like(logprobs)  # (1 − p_y) times the slope of y
        # Σ_v p_v (log p_v + H) W_v
        surprise = torch.empty_like(hidden) if differentiable and entropy_gradient else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = _logits(hidden[part], head, temperature)
            slope = None
            if cap is not None:
                logits.div_(cap).tanh_()
                slope = 1 - logits.square() if differentiable else None
                logits.mul_(cap)
            logits -= logits.amax(dim=-1, keepdim=True)
            weights = logits.exp()
            total = weights.sum(dim=-1)
            logprobs[part] = logits.gather(1, targets[part, None])[:, 0] - total.log()
            entropy[part] = total.log() - (weights[:, None] @ logits[:, :, None])[:, 0, 0] / total
            if surprise is not None:
                logits.add_((entropy[part] - total.log())[:, None]).mul_(weights / total[:, None])
                if slope is not None:
                    logits.mul_(slope)
                surprise[part] = logits.to(head.dtype) @ head
            del logits
            if others is not None:
                weights.scatter_(1, targets[part, None], 0.0)
                rest[part] = weights.sum(dim=-1) / total
                if slope is not None:
                    rest[part] *= slope.gather(1, targets[part, None])[:, 0]
                    weights.mul_(slope)
                others[part] = weights.div_(total[:, None]).to(head.dtype) @ head
        if others is not None:
            ctx.save_for_backward(head, targets, rest, others, surprise)
            ctx.temperature = temperature
        if surprise is None:
            ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, entropy_gradient: Tensor) -> tuple[Tensor | None, ...]:
        head, targets, rest, others, surprise = ctx.saved_tensors
        total = gradient[:, None] * (rest[:, None] * head[targets] - others)
        if surprise is not None:
            total -= entropy_gradient[:, None] * surprise
        return (total / ctx.temperature).to(others.dtype), None, None, None, None, None, None
