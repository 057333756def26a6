"""From verified groups to training examples with their advantages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microbudget_rl.actors.messages import Group
from microbudget_rl.conf.schema import AlgorithmConfig
from microbudget_rl.learner.losses import Observed
from microbudget_rl.learner.packing import Tokens

EPSILON = 1e-6
"""Added to the standard deviation, as in verl; TRL adds 1e-4."""


@dataclass(frozen=True)
class Example:
    """A sample to learn from.

    name: for messages, such as "group 12 sample 3"
    engine: the engine's log-probability of each response token
    version: of the policy that sampled it
    """

    name: str
    tokens: Tokens
    engine: Sequence[float]
    advantage: float
    version: int = 0


def examples(groups: Iterable[Group], algorithm: AlgorithmConfig, accuracy: float) -> list[Example]:
    """Return the samples that have a gradient: those with an advantage, and all if there is a KL or entropy term.

    Samples without a verdict are masked. With `mask_truncated`, truncated ones only count in the group's baseline.
    accuracy: its weight in the reward.
    """
    found: list[Example] = []
    for group in groups:
        rewards = torch.tensor([reward.total for reward in group.rewards], dtype=torch.float64)
        masked = torch.tensor([reward.masked for reward in group.rewards])
        if algorithm.advantages == "over_mean" and not group.zero_variance:
            right = torch.tensor([reward.parts["accuracy"] for reward in group.rewards], dtype=rewards.dtype)
            rewards = likelihood_rewards(rewards, accuracy, right, masked)
        advantages = group_advantages(rewards, masked, algorithm.advantages).tolist()
        rows = zip(group.samples, group.rewards, advantages, strict=True)
        for number, (sample, reward, advantage) in enumerate(rows):
            without = reward.masked or (algorithm.mask_truncated and sample.truncated)
            if sample.token_ids and not without and (advantage or algorithm.regularised):
                tokens = Tokens(group.problem.prompt_ids, sample.token_ids)
                name = f"group {group.index} sample {number}"
                found.append(Example(name, tokens, sample.logprobs, advantage, group.version))
    return found


def observe(
    algorithm: AlgorithmConfig, members: Sequence[Example], logprobs: Tensor, reference: Iterable[Sequence[float]] = ()
) -> Observed:
    """Return the fixed quantities of a micro-batch.

    logprobs: float [t], the policy's before the first step. reference: by member, under the reference, if there is a KL
    term.
    """
    lengths = torch.tensor([len(member.engine) for member in members])
    advantages = torch.tensor([member.advantage for member in members]).repeat_interleave(lengths)
    engine = torch.tensor([value for member in members for value in member.engine]).to(logprobs)
    return Observed(
        engine,
        engine if algorithm.mismatch == "bypass" else logprobs,
        advantages.to(logprobs),
        lengths.to(logprobs.device),
        torch.tensor([value for values in reference for value in values]).to(logprobs) if algorithm.kl else None,
    )


def group_advantages(rewards: Tensor, masked: Tensor, kind: str = "group") -> Tensor:
    """Return the advantages of one problem's samples, by `algorithm.advantages`:

    group: GRPO (DeepSeekMath, arXiv 2402.03300, §4.1.2), (r − mean) / (std + 1e-6), std with Bessel's correction.
    mean_only: Dr. GRPO (arXiv 2503.20783), r − mean.
    leave_one_out: RLOO (arXiv 2402.14740), r − mean of the others = (r − mean) · n / (n − 1).
    over_mean: MaxRL (arXiv 2602.02710, Algorithm 1), r − mean of `likelihood_rewards`.

    rewards: float [n]. masked: bool [n], samples without a verdict, which count in neither mean nor std and get 0.
    The result is float [n], exactly 0 if fewer than two samples have a verdict or all rewards are equal.
    """
    scored = rewards[~masked]
    advantages = torch.zeros_like(rewards)
    if scored.numel() < 2 or scored.min() == scored.max():
        return advantages
    scale = {
        "group": 1 / (scored.std(correction=1).item() + EPSILON),
        "mean_only": 1.0,
        "over_mean": 1.0,
        "leave_one_out": scored.numel() / (scored.numel() - 1),
    }
    advantages[~masked] = (scored - scored.mean()) * scale[kind]
    return advantages


def likelihood_rewards(rewards: Tensor, weight: float, accuracy: Tensor, masked: Tensor) -> Tensor:
    """Return one problem's rewards with their accuracy a divided by its mean, float [n].

    Its advantage is weight · (a − mean) / mean: at most weight · (n − 1), for the only right sample of n, and −weight
    for a wrong one. Other parts of the reward, which the paper does not have, are not divided: few right answers do not
    multiply them, and they may be negative. accuracy: float [n], 0 … 1.
    """
    mean = accuracy[~masked].mean().item()
    return rewards + weight * accuracy * (1 / mean - 1) if mean > 0 else rewards
