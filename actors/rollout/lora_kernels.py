"""Block sizes for vLLM's LoRA kernels on a card, written to the file in which vLLM looks for tuned ones."""

import json
from pathlib import Path

SHRINK = {
    "block_m": 32,
    "block_n": 16,
    "block_k": 32,
    "split_k": 8,
    "num_warps": 4,
    "num_ctas": 1,
    "group_size_m": 8,
    "num_stages": 2,
}
"""Of the product with A: what vLLM 0.32 itself takes from 128 tokens a step on. Below, where decoding is, it splits the
inner dimension 64 times into blocks of 256: a hidden size of 1,536 fills 6 of these splits, and the others add zeros
by atomic operations, which is most of the kernel's time at rank 256."""

SLICES = (1, 2, 3)
"""Projections that vLLM computes as one: o and down alone, gate and up, q, k and v."""


def write_kernel_sizes(folder: Path, card: str) -> None:
    """Write the file for a card, by the name its driver gives.

    vLLM takes the entry nearest to the number of adapters, tokens, inputs and rank, in this order: one serves all. Only
    the number of slices, the second key, has to be met.
    """
    anything = {"1": {"1": {"1": SHRINK}}}
    name = card.replace(" ", "_").replace("-", "_")
    (folder / f"{name}_SHRINK.json").write_text(json.dumps({"1": {str(slices): anything for slices in SLICES}}))
