"""vLLM's compiled norm against its own way, and what is left to that."""

import pytest
import torch
from vllm import ir

from actors.rollout import cpu_norm

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7}
"""Of values up to 4: vLLM's way rounds to bfloat16 once more before it multiplies by the weights."""


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(1, 8), (65, 576), (3, 2, 64)])
def test_it_is_the_norm_that_vllm_computes(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, residual = torch.randn(2, *shape).to(dtype)
    weight = (1.0 + 0.1 * torch.randn(shape[-1])).to(dtype)
    native = {name: getattr(ir.ops, name).impls["native"].impl_fn for name in ("rms_norm", "fused_add_rms_norm")}
    bound = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(cpu_norm.rms_norm.impl_fn(x, weight, 1e-5), native["rms_norm"](x, weight, 1e-5), **bound)
    expected = native["fused_add_rms_norm"](x, residual, weight, 1e-5)
    found = cpu_norm.fused_add_rms_norm.impl_fn(x.clone(), residual.clone(), weight, 1e-5)
    torch.testing.assert_close(found, expected, **bound)


def test_what_the_kernel_would_misread_is_left_to_vllm() -> None:
    """A head's part of a fused projection has gaps between its rows; weights may have another dtype, or none be."""
    x, weight = torch.randn(4, 16), torch.ones(8)
    parts = x[:, :8]
    for given in ((parts, weight), (x[:, :8].contiguous(), weight.double()), (x[:, :8].contiguous(), None)):
        assert not cpu_norm.rms_norm.supports_args(*given, 1e-5)
        assert not cpu_norm.fused_add_rms_norm.supports_args(given[0], x[:, :8].contiguous(), given[1], 1e-5)
    assert not cpu_norm.rms_norm.supports_args(parts.contiguous(), weight, 1e-5, 4)
    assert not cpu_norm.fused_add_rms_norm.supports_args(parts.contiguous(), parts, weight, 1e-5)
    assert cpu_norm.fused_add_rms_norm.supports_args(parts.contiguous(), parts.contiguous(), weight, 1e-5)


def test_it_comes_first() -> None:
    priority = cpu_norm.priority()
    assert priority.rms_norm == priority.fused_add_rms_norm == [cpu_norm.KERNEL, "native"]
    assert priority.gelu_and_mul_sparse == ["native"]
