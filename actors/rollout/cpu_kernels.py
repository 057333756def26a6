"""Replacements for parts of vLLM 0.32 on the CPU.

- LoRA: vLLM's kernel gathers one whole copy of A and B per token, which is unusable at high rank. Here each adapter
  slot costs two dense matrix products per projection, over all its rows of the batch.
- RMS norm: vLLM has a kernel for it, and takes ten operations here instead. With the kernel 64 tokens of width 576 in
  bfloat16 take 12 µs instead of 71 on a core of an EPYC. The norms took an eighth of the engine's time.
- Ranks of sampled tokens: vLLM compiles their count by Inductor. The first response then waits 2 to 11 s, and fails
  without a C++ compiler. For 64 tokens of 49,152 logits each, counting takes 0.9 ms instead of 0.5.
- Sampling: vLLM draws Gumbel noise for every logit: 19 ms for the same 64 tokens, a tenth of a step. Inverting the
  cumulative distribution takes 5.
- Positions: vLLM's kernel rotates rows of all heads. It gets one row per head from LFM2, and then rotates other places.
- Gated delta rule: vLLM's kernels for the linear attention of Qwen 3.5 take bfloat16 alone.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, silu, softplus
from vllm import ir
from vllm.config.kernel import IrOpPriorityConfig
from vllm.forward_context import get_forward_context
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.platforms import current_platform
from vllm.utils.torch_utils import LayerNameType, _resolve_layer_name
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p

current_platform.import_kernels()

KERNEL = "cpu_kernel"
"""Name of the norm's kernel among vLLM's implementations."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Types that the kernel is compiled for."""

LANES = 8
"""Values in one of the kernel's vectors; the width of a row is a multiple."""


class DenseLoRA(PunicaWrapperCPU):
    """Punica wrapper that multiplies per adapter slot instead of per token.

    rows: (slot, row indices) of every adapter slot in the batch; the indices are None when one adapter serves all rows,
        so that the common case copies nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows: list[tuple[int, Tensor | None]] = []

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        self._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
        slot_of_row = self.token_lora_indices
        slots = slot_of_row.unique().tolist()
        if len(slots) == 1:
            self.rows = [(slot, None) for slot in slots if slot >= 0]
        else:
            self.rows = [(slot, (slot_of_row == slot).nonzero().squeeze(1)) for slot in slots if slot >= 0]

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """y[:, slice] += scale · (x Aᵀ) Bᵀ for every slice of a fused projection, in place.

        x (tokens, in), A (slots, 1, rank, in), B (slots, 1, slice, rank). vLLM multiplies alpha / rank into B when it
        loads an adapter.
        """
        y2 = y.view(-1, y.shape[-1])
        x2 = x.view(-1, x.shape[-1])
        for slot, index in self.rows:
            rows = x2 if index is None else x2[index]
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                low = rows @ a[slot, 0].T
                target = y2[:, start : start + width]
                if index is None:
                    target.addmm_(low, b[slot, 0].T, alpha=scale)
                else:
                    target.index_add_(0, index, low @ b[slot, 0].T, alpha=scale)
                start += width


def norm_priority() -> IrOpPriorityConfig:
    """Return vLLM's setting that takes the kernel for norms, and vLLM's own operations where it does not serve."""
    ours = [KERNEL, "native"]
    return IrOpPriorityConfig.with_default(["native"], rms_norm=ours, fused_add_rms_norm=ours)


def _serves(x: Tensor, weight: Tensor | None, variance_size: int | None, *, residual: Tensor | None = None) -> bool:
    """Return whether the kernel computes this norm: it assumes contiguous rows, and one dtype for all tensors."""
    tensors = [tensor for tensor in (x, weight, residual) if tensor is not None]
    return (
        variance_size is None
        and weight is not None
        and x.dtype in DTYPES
        and x.shape[-1] % LANES == 0
        and all(tensor.dtype == x.dtype and tensor.is_contiguous() for tensor in tensors)
    )


@ir.ops.rms_norm.register_impl(
    KERNEL, supports_args=lambda x, weight, epsilon, variance_size=None: _serves(x, weight, variance_size)
)
def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


@ir.ops.fused_add_rms_norm.register_impl(
    KERNEL,
    supports_args=lambda x, x_residual, weight, epsilon, variance_size=None: _serves(
        x, weight, variance_size, residual=x_residual
    ),
    inplace=True,
)
def fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def count_at_least(x: Tensor, values: Tensor) -> Tensor:
    """Return, as int64 [b], how many elements of each row of x [b, n] are at least its value [b, 1].

    n is at most 2^24, up to which float32 counts ones exactly.
    """
    return torch.ge(x, values, out=torch.empty_like(x, dtype=torch.float32)).sum(-1).long()


def sample(
    sampler: TopKTopPSampler, logits: Tensor, generators: dict[int, torch.Generator], k: Tensor | None, p: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return a token per row of logits [b, n], as int64 [b], and float32 log-probabilities [b, n] if asked for.

    generators: of the seeded rows. k, p: limits of top-k and top-p per row.
    """
    allowed = apply_top_k_top_p(logits, k, p)
    reached = allowed.softmax(-1, dtype=torch.float32).cumsum_(-1)
    drawn = 1.0 - torch.rand(len(logits), 1)  # never 0, which a token without probability would reach
    for row, generator in generators.items():
        drawn[row] = 1.0 - torch.rand(1, generator=generator)
    tokens = torch.searchsorted(reached, drawn * reached[:, -1:]).squeeze(-1)
    tokens.clamp_(max=logits.shape[-1] - 1)  # beyond only where logits are not finite
    if sampler.logprobs_mode != "processed_logprobs":
        return tokens, None
    return tokens, allowed.log_softmax(-1, dtype=torch.float32)


_rotate_rows = RotaryEmbedding.forward_cpu
_gated_delta_bfloat16 = gdn_attention.cpu_gdn_attention_core


def rotate(self: RotaryEmbedding, positions: Tensor, query: Tensor, key: Tensor | None = None) -> tuple[Any, Any]:
    """Encode positions in queries and keys, [n, heads · d] or [n, heads, d]."""
    rows, key_rows = _rotate_rows(self, positions, query.flatten(1), None if key is None else key.flatten(1))
    return rows.view(query.shape), None if key is None or key_rows is None else key_rows.view(key.shape)


def gated_delta(mixed_qkv: Tensor, b: Tensor, a: Tensor, core_attn_out: Tensor, layer_name: LayerNameType) -> None:
    """Compute linear attention as vLLM's operation does, float32 by transformers' reference, one request at a time.

    It continues and updates each request's two states: the convolution's last inputs, and the rule's matrix.
    """
    from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule as rule

    context: Any = get_forward_context()
    if mixed_qkv.dtype == torch.bfloat16:
        return _gated_delta_bfloat16(mixed_qkv, b, a, core_attn_out, layer_name)
    if context.attn_metadata is None:  # vLLM measures the memory of a step
        return None
    layer = context.no_compile_layers[_resolve_layer_name(layer_name)]
    batch = context.attn_metadata[layer.prefix]
    inputs, states = gdn_attention._conv_buffer_view(layer), gdn_attention._ssm_state_view(layer)
    weight = gdn_attention._unpacked_conv_weight(layer)[:, None]
    decay = -layer.A_log.float().exp() * softplus(a.float() + layer.dt_bias)
    ends = batch.non_spec_query_start_loc.tolist()[: batch.num_decodes + batch.num_prefills + 1]
    for number, (start, end) in enumerate(pairwise(ends)):
        slot = int(batch.non_spec_state_indices_tensor[number])
        begun = number < batch.num_decodes or bool(batch.has_initial_state[number])
        row = torch.cat((inputs[slot] if begun else torch.zeros_like(inputs[slot]), mixed_qkv[start:end].T), 1)
        inputs[slot] = row[:, -inputs.shape[-1] :]
        mixed = silu(conv1d(row[None], weight, layer.conv1d.bias, groups=len(row)))[0].T
        query, key, value = layer.rearrange_mixed_qkv(mixed)
        repeats = value.shape[2] // key.shape[2]
        core_attn_out[start:end], states[slot] = rule(
            *(query.repeat_interleave(repeats, 2), key.repeat_interleave(repeats, 2), value),
            g=decay[None, start:end],
            beta=b[None, start:end].sigmoid(),
            initial_state=states[slot][None] if begun else None,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
    return None
