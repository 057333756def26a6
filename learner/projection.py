"""A linear projection under its adapter, with as few products as the shapes allow.

PEFT computes y = x Wᵀ + s (x Aᵀ) Bᵀ term by term. The same y is x (W + s B A)ᵀ: to form the sum costs r · in · out
multiplications whatever the batch, the two thin products r · (in + out) for every token, so that a batch of more than
in · out / (in + out) tokens (288 at 576 × 576) is better off with the sum. With G = Σ dyᵀ x, the gradient of the sum,
those of the factors are dB = s G Aᵀ and dA = s Bᵀ G; at a high rank this is fewer multiplications too.
"""

from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class Projection(Linear):
    """PEFT's layer, which it is in every respect but the order of its products.

    Sums are formed in float32 only: a bfloat16 weight would swallow most of what a young adapter adds to it.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x: [..., in]; [..., out]."""
        base = cast(nn.Linear, self.base_layer)
        weight = base.weight
        if self.disable_adapters or not self._plain(x) or not sum_pays(x.numel() // x.shape[-1], weight.shape):
            return super().forward(x, *args, **kwargs)
        a, b = (cast(nn.Linear, pair["default"]).weight for pair in (self.lora_A, self.lora_B))
        y: Tensor = _Summed.apply(x, weight, a, b, self.scaling["default"])
        return y if base.bias is None else y + base.bias

    def _plain(self, x: Tensor) -> bool:
        return x.dtype == torch.float32 and not (self.training and isinstance(self.lora_dropout["default"], nn.Dropout))


def sum_pays(tokens: int, shape: torch.Size) -> bool:
    """Whether W + s B A, of this shape, costs less than the thin products of so many tokens, at any rank."""
    return tokens * (shape[0] + shape[1]) > shape[0] * shape[1]


def full_gradient_pays(tokens: int, shape: torch.Size, rank: int) -> bool:
    """Whether G and its two projections cost less than the four thin products that lead to dA and dB without it."""
    return (tokens + 2 * rank) * shape[0] * shape[1] < 2 * tokens * rank * (shape[0] + shape[1])


class _Summed(torch.autograd.Function):
    """x (W + s B A)ᵀ. The sum is formed again for the backward pass, so that nothing but x is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scaling = scaling
        return linear(x, torch.addmm(weight, b, a, alpha=scaling))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        x, weight, a, b = ctx.saved_tensors
        dy, rows = gradient.flatten(0, -2), x.flatten(0, -2)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ torch.addmm(weight, b, a, alpha=ctx.scaling)).view_as(x)
        if full_gradient_pays(len(rows), weight.shape, len(a)):
            full = dy.T @ rows
            da, db = b.T @ full, full @ a.T
        else:
            da, db = (dy @ b).T @ rows, dy.T @ (rows @ a.T)
        return dx, None, da.mul_(ctx.scaling), db.mul_(ctx.scaling), None
