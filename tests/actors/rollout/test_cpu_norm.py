"""vLLM's compiled norm against its own way, and what is left to that."""

import pytest
import torch
from vllm import ir
from vllm.platforms import current_platform

from actors.rollout import cpu_norm

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the kernel is of vLLM's CPU build")

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-7}
"""vLLM's way rounds to bfloat16 once more before it multiplies by the weights, and the kernel when it has added."""


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(1, 8), (65, 576), (3, 2, 64)])
def test_it_is_the_norm_that_vllm_computes(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, residual = torch.randn(2, *shape).to(dtype)
    weight = (1.0 + 0.1 * torch.randn(shape[-1])).to(dtype)
    native = {name: getattr(ir.ops, name).impls["native"].impl_fn for name in ("rms_norm", "fused_add_rms_norm")}
    bound = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(cpu_norm.rms_norm.impl_fn(x, weight, 1e-5), native["rms_norm"](x, weight, 1e-5), **bound)
    expected = native["fused_add_rms_norm"](x, residual, weight, 1e-5)
    found = cpu_norm.fused_add_rms_norm.impl_fn(x.clone(), residual.clone(), weight, 1e-5)
    torch.testing.assert_close(found, expected, **bound)


def test_what_the_kernel_would_misread_is_left_to_vllm() -> None:
    """A head's part of a fused projection has gaps between its rows; weights may have another dtype, or none be; a row
    may end amid a vector.
    """
    serves, serves_sum = cpu_norm.rms_norm.supports_args, cpu_norm.fused_add_rms_norm.supports_args
    x, weight, gaps, odd = torch.randn(4, 8), torch.ones(8), torch.randn(4, 16)[:, :8], torch.randn(4, 12)
    assert serves(x, weight, 1e-5)
    assert serves_sum(x, x.clone(), weight, 1e-5)
    given = ((gaps, weight), (x, weight.bfloat16()), (x, None), (odd, torch.ones(12)), (x.double(), weight.double()))
    for values, weights in given:
        assert not serves(values, weights, 1e-5)
        assert not serves_sum(values, values.clone().contiguous(), weights, 1e-5)
    assert not serves(x, weight, 1e-5, 4)
    for residual in (gaps, x.bfloat16()):
        assert not serves_sum(x, residual, weight, 1e-5)


def test_it_comes_first() -> None:
    priority = cpu_norm.priority()
    assert priority.rms_norm == priority.fused_add_rms_norm == [cpu_norm.KERNEL, "native"]
    assert priority.gelu_and_mul_sparse == ["native"]
