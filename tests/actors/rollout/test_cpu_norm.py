"""The norms of vLLM's compiled kernel, and what is left to vLLM's own way."""

import pytest
import torch
from vllm.platforms import current_platform

from actors.rollout import cpu_norm

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the kernel is of vLLM's CPU build")

EPSILON = 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 8), (65, 576), (3, 2, 64)])
def test_it_is_the_norm_but_for_rounding(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """A rounding is off by less than one unit in the last place: on a CPU without bfloat16 vLLM cuts digits off. The
    norm of a sum is rounded twice. In float32 the mean square is off by 2⁻²⁴ per value at most, and its root by half.
    """
    torch.manual_seed(0)
    x, residual = (EPSILON**0.5 * torch.randn(2, *shape)).to(dtype)  # so small that epsilon matters
    weight = (1.0 + 0.1 * torch.randn(shape[-1])).to(dtype)

    def check(found: torch.Tensor, expected: torch.Tensor, roundings: int) -> None:
        bound = (1.0 + torch.finfo(dtype).eps) ** roundings - 1.0 + (shape[-1] / 2 + 4) * 2**-24
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=bound, atol=0.0)

    def norm(values: torch.Tensor) -> torch.Tensor:
        return values * (values.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight.double()

    total = x.double() + residual.double()
    check(cpu_norm.rms_norm.impl_fn(x, weight, EPSILON), norm(x.double()), roundings=1)
    normed, summed = cpu_norm.fused_add_rms_norm.impl_fn(x.clone(), residual.clone(), weight, EPSILON)
    check(summed, total, roundings=1)
    check(normed, norm(total), roundings=2)


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
