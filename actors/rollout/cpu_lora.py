"""LoRA on vLLM's CPU backend at matmul speed.

vLLM's stock CPU kernel gathers one whole copy of A and B per token, which is unusable at high rank. Here the rows of a
batch are taken together by adapter slot and each slot costs two dense matrix products per projection.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class DenseLoRA(PunicaWrapperCPU):
    """Punica wrapper that multiplies per adapter slot instead of per token.

    `rows` holds (slot, row indices) for every adapter slot in the current batch; the indices are None when one
    adapter serves all rows, so that the common case copies nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rows: list[tuple[int, torch.Tensor | None]] = []

    def update_metadata(
        self,
        mapping: Any,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
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
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """y[:, slice] += scale · (x Aᵀ) Bᵀ for every slice of a fused projection, in place.

        x (tokens, in), A (slots, 1, rank, in), B (slots, 1, slice, rank). vLLM multiplies alpha / rank into B when it
        loads an adapter, so `scale` is 1 in practice.
        """
        y2 = y.view(-1, y.shape[-1])
        x2 = x.view(-1, x.shape[-1])
        for slot, index in self.rows:
            rows = x2 if index is None else x2[index]
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                low = rows @ a[slot, 0].T
                if scale != 1.0:
                    low = low * scale
                target = y2[:, start : start + width]
                if index is None:
                    target.addmm_(low, b[slot, 0].T)
                else:
                    target.index_add_(0, index, low @ b[slot, 0].T)
                start += width
