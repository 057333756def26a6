"""A linear projection under its adapter, with fewer products than term by term.

PEFT computes y = x Wᵀ + s (x Aᵀ) Bᵀ. The same y is x (W + s B A)ᵀ. The sum costs r · in · out multiplications per
batch, the two thin products r · (in + out) per token, and a micro-batch has more than in · out / (in + out) tokens (288
at 576 × 576). With G = Σ dyᵀ x, the gradient of the sum, those of the factors are dB = s G Aᵀ and dA = s Bᵀ G; at a
high rank this is fewer multiplications too.

A bfloat16 sum would round away most of a young adapter's change. There the terms stay separate, but each product is
added to the previous one while it is computed, without an extra pass over full-width vectors for a scaling or a sum.
"""

from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class Projection(Linear):
    """PEFT's layer, with another order of products in bfloat16, and in float32 training.

    The order does not depend on the number of tokens, or a token's values would depend on its micro-batch.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Project x, [..., in], to [..., out]."""
        summed, chained = x.dtype == torch.float32 and self.training, chains(x)
        dropout = isinstance(self.lora_dropout["default"], nn.Dropout)
        if self.disable_adapters or dropout or not (summed or chained):
            return super().forward(x, *args, **kwargs)
        base = cast(nn.Linear, self.base_layer)
        a, b = (cast(nn.Linear, pair["default"]).weight for pair in (self.lora_A, self.lora_B))
        y: Tensor
        if chained:
            y = _Chained.apply(x, base.weight, base.bias, a, b, self.scaling["default"])
            return y
        y = _Summed.apply(x, base.weight, a, b, self.scaling["default"])
        return y if base.bias is None else y + base.bias


def chains(x: Tensor) -> bool:
    """Return whether each product of this input is added to the previous one while it is computed."""
    return x.dtype == torch.bfloat16


def full_gradient_pays(shape: torch.Size, rank: int) -> bool:
    """Return whether G takes fewer multiplications per token than the four thin products without it."""
    return shape[0] * shape[1] < 2 * rank * (shape[0] + shape[1])


class _Summed(torch.autograd.Function):
    """x (W + s B A)ᵀ. The backward pass computes the sum again, so that only x is kept."""

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
        if full_gradient_pays(weight.shape, len(a)):
            full = dy.T @ rows
            da, db = b.T @ full, full @ a.T
        else:
            da, db = (dy @ b).T @ rows, dy.T @ (rows @ a.T)
        return dx, None, da.mul_(ctx.scaling), db.mul_(ctx.scaling), None


class _Chained(torch.autograd.Function):
    """x Wᵀ + bias + s (x Aᵀ) Bᵀ, each term added by the product that computes it; the gradients likewise."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        rows = x.flatten(0, -2)
        inner = rows @ a.T
        ctx.save_for_backward(x, inner, weight, a, b)
        ctx.scaling = scaling
        return linear(rows, weight, bias).addmm_(inner, b.T, alpha=scaling).view(*x.shape[:-1], len(b))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x, inner, weight, a, b = ctx.saved_tensors
        dy, rows, s = gradient.flatten(0, -2), x.flatten(0, -2), ctx.scaling
        thin = dy @ b
        dx = (dy @ weight).addmm_(thin, a, alpha=s).view_as(x) if ctx.needs_input_grad[0] else None
        nothing = thin.new_zeros(())
        da = torch.addmm(nothing, thin.T, rows, beta=0, alpha=s)
        db = torch.addmm(nothing, dy.T, inner, beta=0, alpha=s)
        return dx, None, None, da, db, None
