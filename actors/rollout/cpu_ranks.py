"""Ranks of drawn tokens on vLLM's CPU backend without a compiler. vLLM counts them with every log-probability.

vLLM 0.32 has Inductor compile this: the first answer then waits 2 s, or 11 s on a machine on which nothing was compiled
yet, and fails without a C++ compiler. For 64 tokens of 49,152 logits each, counting takes 0.9 ms instead of 0.5.
"""

import torch
from torch import Tensor


def count_at_least(x: Tensor, values: Tensor) -> Tensor:
    """Return, as int64 [b], how many elements of each row of x [b, n] are at least its value [b, 1].

    n is at most 2^24, up to which float32 counts ones exactly.
    """
    return torch.ge(x, values, out=torch.empty_like(x, dtype=torch.float32)).sum(-1).long()
