"""Causal attention over packed sequences, as an attention implementation of transformers.

Everything else in a decoder works token by token, so the tokens of a micro-batch stand in one row, without padding and
with each prompt once. Only here are they spread into one row a sample: prompt, then response.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from learner.batching import MicroBatch

NAME = "packed"


def hidden_states(base: Any, batch: MicroBatch) -> Tensor:
    """Return the last hidden state of every token, [n, h], of a causal language model with this attention."""
    ids, positions = batch.ids[None], batch.positions[None]
    layout = {"blocks": batch.blocks, "homes": batch.homes}
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
    blocks: tuple[Tensor, ...],
    homes: Tensor,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each sample, as transformers' attention function; the result is [1, n, heads, d].

    query: [1, heads, n, d]; key, value: [1, kv_heads, n, d], positions encoded. blocks, homes: see `MicroBatch`. On
    the CPU it computes in float32: the backward pass of torch's kernel takes five times as long in bfloat16.
    """
    precision = torch.float32 if query.device.type == "cpu" and query.dtype == torch.bfloat16 else query.dtype
    flat = [x[0].transpose(0, 1).to(precision) for x in (query, key, value)]
    outputs = []
    for block in blocks:
        queries, keys, values = (x[block].transpose(1, 2) for x in flat)
        mask = _window(block.shape[1], sliding_window, block.device)
        output = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[homes][None].to(query.dtype), None


def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return, as bool [length, length], what a sliding window lets each position see; None where that is all."""
    if window is None or length <= window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


AttentionInterface.register(NAME, attend)
