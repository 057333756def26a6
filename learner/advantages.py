"""What a reward says about a sample, relative to the other samples of its problem."""

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to the standard deviation, as in the GRPO implementations of verl and TRL."""


def group_advantages(rewards: Tensor, masked: Tensor, kind: str = "group") -> Tensor:
    """Advantages of the samples of one problem, by `algorithm.advantages`:

    group: GRPO (DeepSeekMath, arXiv 2402.03300, §4.1.2), (r − mean) / (std + 1e-6), std with Bessel's correction.
    mean_only: Dr. GRPO (arXiv 2503.20783), r − mean.
    leave_one_out: RLOO (arXiv 2402.14740), r − mean of the others = (r − mean) · n / (n − 1).

    rewards: float [n]. masked: bool [n], samples that could not be judged; they count neither in mean nor in std and
    get advantage 0. Returns float [n], exactly 0 where fewer than two samples were judged or all earned the same.
    """
    judged = rewards[~masked]
    advantages = torch.zeros_like(rewards)
    if judged.numel() < 2 or judged.min() == judged.max():
        return advantages
    scale = {
        "group": 1 / (judged.std(correction=1).item() + EPSILON),
        "mean_only": 1.0,
        "leave_one_out": judged.numel() / (judged.numel() - 1),
    }
    advantages[~masked] = (judged - judged.mean()) * scale[kind]
    return advantages
