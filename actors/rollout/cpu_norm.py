"""RMS norm on vLLM's CPU backend in one kernel instead of ten: vLLM 0.32 has it compiled, and does not use it there."""

import torch
from torch import Tensor
from vllm import ir
from vllm.config.kernel import IrOpPriorityConfig

KERNEL = "cpu_kernel"


def priority() -> IrOpPriorityConfig:
    """Return vLLM's setting for it; what the kernel does not serve is left to vLLM's own way."""
    ours = [KERNEL, "native"]
    return IrOpPriorityConfig.with_default(["native"], rms_norm=ours, fused_add_rms_norm=ours)


def _serves(x: Tensor, weight: Tensor | None, variance_size: int | None) -> bool:
    """Whether the kernel, which takes its tensors for rows without gaps, computes this norm."""
    return variance_size is None and weight is not None and weight.dtype == x.dtype and x.is_contiguous()


@ir.ops.rms_norm.register_impl(
    KERNEL, supports_args=lambda x, weight, epsilon, variance_size=None: _serves(x, weight, variance_size)
)
def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


@ir.ops.fused_add_rms_norm.register_impl(
    KERNEL,
    supports_args=lambda x, x_residual, weight, epsilon, variance_size=None: (
        _serves(x, weight, variance_size) and x_residual.is_contiguous()
    ),
    inplace=True,
)
def fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual
