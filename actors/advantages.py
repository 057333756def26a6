"""The advantage of each sample of a verified group: what the learner weighs its tokens by."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

from microbudget_rl.actors.messages import Group
from microbudget_rl.conf.schema import AlgorithmConfig

EPSILON = 1e-6
"""Added to the standard deviation, as in verl; TRL adds 1e-4."""


def weigh(group: Group, algorithm: AlgorithmConfig, accuracy: float) -> tuple[float | None, ...]:
    """Return the advantage of each sample; None for one that the learner leaves out.

    Those are the samples without a verdict, and with `mask_truncated` the truncated ones, which count in the group's
    baseline all the same. accuracy: its weight in the reward.
    """
    scored = [number for number, reward in enumerate(group.rewards) if not reward.masked]
    rewards = [group.rewards[number].total for number in scored]
    if algorithm.advantages == "over_mean" and not group.zero_variance:
        right = [group.rewards[number].parts["accuracy"] for number in scored]
        rewards = likelihood_rewards(rewards, accuracy, right)
    advantages = dict(zip(scored, group_advantages(rewards, algorithm.advantages), strict=True))
    return tuple(
        None if algorithm.mask_truncated and sample.truncated else advantages.get(number)
        for number, sample in enumerate(group.samples)
    )


def group_advantages(rewards: Sequence[float], kind: str = "group") -> list[float]:
    """Return the advantages of one problem's samples, by `algorithm.advantages`:

    group: GRPO (DeepSeekMath, arXiv 2402.03300, §4.1.2), (r − mean) / (std + 1e-6), std with Bessel's correction.
    mean_only: Dr. GRPO (arXiv 2503.20783), r − mean.
    leave_one_out: RLOO (arXiv 2402.14740), r − mean of the others = (r − mean) · n / (n − 1).
    over_mean: MaxRL (arXiv 2602.02710, Algorithm 1), r − mean of `likelihood_rewards`.

    All are exactly 0 if there are fewer than two samples or all rewards are equal.
    """
    count = len(rewards)
    if len(set(rewards)) < 2:
        return [0.0] * count
    mean = fmean(rewards)
    deviations = [reward - mean for reward in rewards]
    scale = {
        "group": 1 / (sqrt(sum(deviation**2 for deviation in deviations) / (count - 1)) + EPSILON),
        "mean_only": 1.0,
        "over_mean": 1.0,
        "leave_one_out": count / (count - 1),
    }[kind]
    return [deviation * scale for deviation in deviations]


def likelihood_rewards(rewards: Sequence[float], weight: float, accuracy: Sequence[float]) -> list[float]:
    """Return one problem's rewards with their accuracy a divided by its mean.

    Its advantage is weight · (a − mean) / mean: at most weight · (n − 1), for the only right sample of n, and −weight
    for a wrong one. Other parts of the reward, which the paper does not have, are not divided: few right answers do not
    multiply them, and they may be negative. accuracy: 0 … 1 by sample.
    """
    mean = fmean(accuracy)
    gain = weight * (1 / mean - 1) if mean else 0.0
    return [reward + gain * right for reward, right in zip(rewards, accuracy, strict=True)]
