"""From verified groups to what the learner computes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from actors.messages import Group
from conf.schema import AlgorithmConfig
from learner.advantages import group_advantages
from learner.batching import Tokens
from learner.losses import Totals


@dataclass(frozen=True)
class Example:
    """A sample to learn from. name: for people, "group 12 sample 3"."""

    name: str
    tokens: Tokens
    engine: Sequence[float]
    advantage: float


def examples(groups: Iterable[Group], algorithm: AlgorithmConfig) -> Iterator[Example]:
    """The samples whose tokens have a gradient: with an advantage, or any where KL or entropy are in the loss.

    Samples without a verdict are left out, and with `mask_truncated` those that hit the limit, after they have counted
    in their group's baseline.
    """
    for group in groups:
        rewards = torch.tensor([reward.total for reward in group.rewards], dtype=torch.float64)
        masked = torch.tensor([reward.masked for reward in group.rewards])
        advantages = group_advantages(rewards, masked, algorithm.advantages).tolist()
        for number, (sample, reward, advantage) in enumerate(
            zip(group.samples, group.rewards, advantages, strict=True)
        ):
            left_out = reward.masked or (algorithm.mask_truncated and sample.truncated)
            if sample.token_ids and not left_out and (advantage or algorithm.regularised):
                tokens = Tokens(group.problem.prompt_ids, sample.token_ids)
                yield Example(f"group {group.index} sample {number}", tokens, sample.logprobs, advantage)


def totals(groups: Iterable[Group], limit: int) -> Totals:
    """The denominators of a batch, from all its samples; limit: rollout.max_response_tokens."""
    lengths = [len(sample.token_ids) for group in groups for sample in group.samples]
    return Totals(len(lengths), sum(lengths), limit)
