"""The replacements for parts of vLLM on the CPU, against plain mathematics."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.lora.layers import LoRAMapping
from vllm.platforms import current_platform

if not current_platform.is_cpu():
    pytest.skip("of vLLM's CPU build", allow_module_level=True)

from microbudget_rl.actors.rollout import cpu_kernels
from microbudget_rl.actors.rollout.cpu_kernels import DenseLoRA, RotaryEmbedding, count_at_least, rotate

RANK, WIDTH, SLICES = 8, 16, (12, 4, 4)
EPSILON = 1e-5
SAMPLER: Any = SimpleNamespace(logprobs_mode="processed_logprobs")


@pytest.mark.parametrize(
    "adapters",
    [(1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 1)],
    ids=["one adapter", "base only", "all three"],
)
def test_rows_get_their_own_adapters(adapters: tuple[int, ...]):
    """Slot 0 holds adapter 2 and slot 1 adapter 1; id 0 is the base model. Fused projection with three slices. The
    rows of a batch before it are forgotten.
    """
    torch.manual_seed(0)
    wrapper = DenseLoRA(max_num_batched_tokens=8, max_batches=8, device="cpu")
    for batch in ((1, 0), adapters):
        wrapper.update_metadata(LoRAMapping(batch, batch, is_prefill=True), [2, 1], 2, 100)
    x = torch.randn(len(adapters), WIDTH)
    a = tuple(torch.randn(2, 1, RANK, WIDTH) for _ in SLICES)
    b = tuple(torch.randn(2, 1, width, RANK) for width in SLICES)
    y = torch.randn(len(adapters), sum(SLICES))

    expected = y.clone()
    for row, adapter in enumerate(adapters):
        if adapter:
            slot = [2, 1].index(adapter)
            deltas = [b_[slot, 0] @ (a_[slot, 0] @ x[row]) for a_, b_ in zip(a, b, strict=True)]
            expected[row] += 0.5 * torch.cat(deltas)

    wrapper.add_lora_linear(y, x, a, b, 0.5, SLICES)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 8), (65, 576), (3, 2, 64)])
def test_norm_is_exact_up_to_rounding(dtype: torch.dtype, shape: tuple[int, ...]):
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
    check(cpu_kernels.rms_norm.impl_fn(x, weight, EPSILON), norm(x.double()), roundings=1)
    normed, summed = cpu_kernels.fused_add_rms_norm.impl_fn(x.clone(), residual.clone(), weight, EPSILON)
    check(summed, total, roundings=1)
    check(normed, norm(total), roundings=2)


def test_kernel_declines_what_it_would_misread():
    """Gaps between rows, as in a fused projection, other types, no weight, a row that ends amid a vector."""
    serves, serves_sum = cpu_kernels.rms_norm.supports_args, cpu_kernels.fused_add_rms_norm.supports_args
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
    priority = cpu_kernels.norm_priority()
    assert priority.rms_norm == priority.fused_add_rms_norm == [cpu_kernels.KERNEL, "native"]
    assert priority.gelu_and_mul_sparse == ["native"]


@pytest.mark.parametrize("shape", [(1, 7), (3, 49152), (2, 262144)])
def test_ranks_are_counted_as_in_vllm(shape: tuple[int, int]):
    torch.manual_seed(0)
    x = torch.randn(shape).log_softmax(-1)
    x[:, 2] = -torch.inf  # cut off by top-p
    x[0] = x[0, 0]  # all alike
    values = x[:, :1]
    found = count_at_least(x, values)
    assert found.dtype == torch.int64
    assert found.tolist() == (x >= values).sum(-1).tolist()
    assert found[0] == shape[1]


def test_plugin_installs_the_replacements():
    from vllm.plugins import load_general_plugins
    from vllm.v1.sample import sampler
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    load_general_plugins()
    assert TopKTopPSampler.forward_cpu is cpu_kernels.sample
    assert sampler.batched_count_greater_than is count_at_least
    assert current_platform.get_punica_wrapper() == f"{DenseLoRA.__module__}.DenseLoRA"
    assert current_platform.get_default_ir_op_priority(None).rms_norm[0] == cpu_kernels.KERNEL


def draw(logits: torch.Tensor, seeds: dict[int, int], p: torch.Tensor | None = None) -> Any:
    generators = {row: torch.Generator().manual_seed(seed) for row, seed in seeds.items()}
    return cpu_kernels.sample(SAMPLER, logits, generators, None, p)


def test_tokens_come_as_often_as_they_are_probable():
    torch.manual_seed(0)
    logits, count = torch.tensor([2.0, -torch.inf, 0.0, 1.0, -8.0]), 100_000
    tokens, logprobs = draw(logits.expand(count, -1), {})
    expected = logits.softmax(0)
    torch.testing.assert_close(logprobs, expected.log().expand(count, -1))
    frequency = tokens.bincount(minlength=5) / count
    assert ((frequency - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt()).all()


def test_a_seeded_row_depends_on_nothing_else():
    rows = torch.randn(3, 1000)
    alone = [draw(rows[i : i + 1], {0: i})[0].item() for i in range(3)]
    assert draw(rows, {0: 0, 1: 1, 2: 2})[0].tolist() == alone


def test_top_p_leaves_only_the_probable_tokens():
    logits = torch.tensor([[3.0, 2.9, 0.0, -1.0]]).repeat(1000, 1)
    tokens, logprobs = draw(logits.clone(), {}, torch.full((1000,), 0.5))
    assert set(tokens.tolist()) == {0}
    assert logprobs[:, 2:].isneginf().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_still_give_a_token(value: float):
    tokens, logprobs = draw(torch.tensor([[0.0, value, 0.0]]), {0: 1})
    assert 0 <= tokens.item() < 3
    assert not logprobs.isfinite().all()


@pytest.mark.parametrize("shape", [(5, 4, 32), (5, 128)])
def test_positions_are_encoded_in_rows_of_all_heads_or_of_one(shape: tuple[int, ...]):
    with set_current_vllm_config(VllmConfig()):
        embedding = RotaryEmbedding(32, 32, 64, 1e4, True, torch.float32)
    positions, query, key = torch.arange(5), torch.randn(shape), torch.randn(shape)
    expected = embedding.forward_native(positions, query.clone(), key.clone())
    for found, other in zip(rotate(embedding, positions, query, key), expected, strict=True):
        assert found is not None
        torch.testing.assert_close(found, other)
