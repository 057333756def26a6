"""What a reward says about a sample, relative to the other samples of its problem."""

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to the standard deviation, as in the GRPO implementations of verl and TRL."""


def group_advantages(rewards: Tensor, masked: Tensor) -> Tensor:
    """GRPO (DeepSeekMath, arXiv 2402.03300, §4.1.2): (r − mean) / (std + 1e-6), std with Bessel's correction.

    rewards: float [n], the samples of one problem. masked: bool [n], samples that could not be judged; they count
    neither in mean nor in std and get advantage 0. Returns float [n], exactly 0 where fewer than two samples were
    judged or all earned the same.
    """
    judged = rewards[~masked]
    advantages = torch.zeros_like(rewards)
    if judged.numel() < 2 or judged.min() == judged.max():
        return advantages
    advantages[~masked] = (judged - judged.mean()) / (judged.std(correction=1) + EPSILON)
    return advantages
