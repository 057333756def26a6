"""What a reward says about a sample, relative to the other samples of its problem."""

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to the standard deviation, as in verl; TRL adds 1e-4."""


def group_advantages(rewards: Tensor, masked: Tensor, kind: str = "group") -> Tensor:
    """Return the advantages of one problem's samples, by `algorithm.advantages`:

    group: GRPO (DeepSeekMath, arXiv 2402.03300, §4.1.2), (r − mean) / (std + 1e-6), std with Bessel's correction.
    mean_only: Dr. GRPO (arXiv 2503.20783), r − mean.
    leave_one_out: RLOO (arXiv 2402.14740), r − mean of the others = (r − mean) · n / (n − 1).

    rewards: float [n]. masked: bool [n], samples without a verdict, which count in neither mean nor std and get 0.
    The result is float [n], exactly 0 where fewer than two samples have a verdict or all earned the same.
    """
    scored = rewards[~masked]
    advantages = torch.zeros_like(rewards)
    if scored.numel() < 2 or scored.min() == scored.max():
        return advantages
    scale = {
        "group": 1 / (scored.std(correction=1).item() + EPSILON),
        "mean_only": 1.0,
        "leave_one_out": scored.numel() / (scored.numel() - 1),
    }
    advantages[~masked] = (scored - scored.mean()) * scale[kind]
    return advantages
