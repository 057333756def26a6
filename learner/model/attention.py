"""Causal attention over packed sequences, as an attention implementation of transformers.

Everything else in a decoder works token by token, so the tokens of a micro-batch form one row without padding, with
each prompt and the shared start of all prompts only once. Only attention, and the mixers of some models
(`learner.model.mixers`), spread them into rows: a sample's prompt, then its response. `learner.packing` shows the
layout.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from microbudget_rl.learner.model.mixers import separate
from microbudget_rl.learner.packing import Block, MicroBatch, Segments, Tokens, pack

log = logging.getLogger(__name__)

SAME = 0.05
"""Largest difference between two correct attention kernels in bfloat16 on normal values, relative to the largest
value, or to 1 if that is smaller: a few rounding steps at 1. A wrong mask moves values by 1."""

LARGEST_HEAD = 256
"""Largest head size that torch's flash kernel has code for; the full attention of Gemma 4 has heads of 512."""

PACKED = "packed"
UNPADDED = "unpadded"
"""Names of two implementations: rows in padded blocks, on any device; rows of any length in one kernel, on a GPU."""


def hidden_states(base: Any, batch: MicroBatch) -> Tensor:
    """Return the last hidden state of every token, [n, h], of a causal language model with this attention."""
    ids, positions = batch.ids[None], batch.positions[None]
    separate(base, batch)
    layout = {"blocks": batch.blocks, "output_places": batch.output_places, "segments": batch.segments}
    output = base.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False, **layout)
    states: Tensor = output.last_hidden_state[0]
    return states


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    blocks: tuple[Block, ...],
    output_places: Tensor,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each sample, as transformers' attention function; the result is [1, n, heads, d].

    query: [1, heads, n, d]; key, value: [1, kv_heads, n, d], with positions encoded. blocks, output_places: see
    `MicroBatch`. On the CPU it computes in float32, because the backward pass of torch's kernel takes five times as
    long in bfloat16.
    """
    flat = [x[0].transpose(0, 1).to(precision(query)) for x in (query, key, value)]
    outputs = []
    for block in blocks:
        places = (block.queries, block.keys, block.keys)
        queries, keys, values = (x[place].transpose(1, 2) for x, place in zip(flat, places, strict=True))
        mask = block.seen(sliding_window)
        output = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[output_places][None].to(query.dtype), None


def attend_unpadded(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    segments: Segments,
    scaling: float,
    sliding_window: int | None = None,
    **layout: Any,
) -> tuple[Tensor, None]:
    """Attend as `attend` does, in torch's flash kernel for rows of any length. Float32 and large heads, which the
    kernel does not support, go to `attend`.

    The kernel's causal mask aligns the last query with the last key of a row. A row's queries are therefore its last
    tokens, those in no row before it, and each token's output is computed once. A window of w is w − 1 keys to the
    left.
    """
    if query.dtype not in (torch.bfloat16, torch.float16) or query.shape[-1] > LARGEST_HEAD:
        layout |= {"scaling": scaling, "sliding_window": sliding_window}
        return attend(module, query, key, value, attention_mask, **layout)
    queries, keys, values = (x[0].transpose(0, 1) for x in (query, key, value))
    output: Any = varlen_attn(
        queries,
        segments.spread(keys),
        segments.spread(values),
        segments.query_ends,
        segments.key_ends,
        segments.longest_query,
        segments.longest_key,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=True,
    )
    return output[None], None


def precision(query: Tensor) -> torch.dtype:
    """Return the dtype in which `attend` computes."""
    return torch.float32 if query.device.type == "cpu" and query.dtype == torch.bfloat16 else query.dtype


def unpadded_serves(shape: Any, device: torch.device) -> bool:
    """Return whether a device's kernel for rows of any length agrees with `attend`. shape: a model's configuration."""
    heads, kv_heads = shape.num_attention_heads, shape.num_key_value_heads or shape.num_attention_heads
    size = getattr(shape, "head_dim", None) or shape.hidden_size // heads
    prompts = ((1,) * 40, (1,) * 30 + (2,) * 10)
    (batch,) = pack([Tokens(prompt, (1,) * length) for prompt in prompts for length in (90, 30, 1)], 1000)
    batch, generator = batch.to(device), torch.Generator(device).manual_seed(0)
    *inputs, gradient = (
        torch.randn(1, count, batch.tokens, size, device=device, dtype=torch.bfloat16, generator=generator)
        for count in (heads, kv_heads, kv_heads, heads)
    )

    def compute(attention: Any, **more: Any) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        output, _ = attention(nn.Module(), *leaves, None, **layout, **more)
        return output.detach(), *torch.autograd.grad(output, leaves, gradient.transpose(1, 2))

    layout: dict[str, Any] = {"scaling": size**-0.5, "blocks": batch.blocks, "output_places": batch.output_places}
    for layout["sliding_window"] in (None, 16):
        try:
            unpadded = compute(attend_unpadded, segments=batch.segments)
        except RuntimeError as error:  # a GPU or a head size that the kernel has no code for
            log.warning("attention without padding does not run here; padded blocks take its place: %s", error)
            return False
        pairs = zip(unpadded, compute(attend), strict=True)
        deviations = [
            (result - expected).abs().max() / expected.abs().max().clamp_min(1.0) for result, expected in pairs
        ]
        if not (most := torch.stack(deviations).max().item()) < SAME:
            log.warning("attention without padding differs from padded blocks by %.2g here; they take its place", most)
            return False
    return True


AttentionInterface.register(PACKED, attend)
AttentionInterface.register(UNPADDED, attend_unpadded)
