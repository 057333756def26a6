"""From verified groups to training examples: their advantages, and how processes divide them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from actors.messages import Group
from conf.schema import AlgorithmConfig

EPSILON = 1e-6
"""Added to the standard deviation, as in verl; TRL adds 1e-4."""


class Tokens(NamedTuple):
    """The token ids of a sample: a prompt of at least one token, and the response."""

    prompt: tuple[int, ...]
    response: Sequence[int]


@dataclass(frozen=True)
class Example:
    """A sample to learn from.

    name: for messages, such as "group 12 sample 3"
    engine: the engine's log-probability of each response token
    """

    name: str
    tokens: Tokens
    engine: Sequence[float]
    advantage: float


def examples(groups: Iterable[Group], algorithm: AlgorithmConfig) -> Iterator[Example]:
    """Yield the samples that have a gradient: those with an advantage, and all others if there is a KL or entropy term.

    Samples without a verdict are masked. With `mask_truncated`, truncated ones only count in the group's baseline.
    """
    for group in groups:
        rewards = torch.tensor([reward.total for reward in group.rewards], dtype=torch.float64)
        masked = torch.tensor([reward.masked for reward in group.rewards])
        advantages = group_advantages(rewards, masked, algorithm.advantages).tolist()
        rows = zip(group.samples, group.rewards, advantages, strict=True)
        for number, (sample, reward, advantage) in enumerate(rows):
            without = reward.masked or (algorithm.mask_truncated and sample.truncated)
            if sample.token_ids and not without and (advantage or algorithm.regularised):
                tokens = Tokens(group.problem.prompt_ids, sample.token_ids)
                yield Example(f"group {group.index} sample {number}", tokens, sample.logprobs, advantage)


def group_advantages(rewards: Tensor, masked: Tensor, kind: str = "group") -> Tensor:
    """Return the advantages of one problem's samples, by `algorithm.advantages`:

    group: GRPO (DeepSeekMath, arXiv 2402.03300, §4.1.2), (r − mean) / (std + 1e-6), std with Bessel's correction.
    mean_only: Dr. GRPO (arXiv 2503.20783), r − mean.
    leave_one_out: RLOO (arXiv 2402.14740), r − mean of the others = (r − mean) · n / (n − 1).

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
        "leave_one_out": scored.numel() / (scored.numel() - 1),
    }
    advantages[~masked] = (scored - scored.mean()) * scale[kind]
    return advantages


def divide(samples: Sequence[Tokens], processes: int) -> list[list[int]]:
    """Return each process's positions in `samples`: neighbours together, about the same work for all.

    Work is counted in input tokens. A prompt counts once for all its samples, without the shared start of all prompts,
    which every process computes. Every process is within one sample of the mean and may get none. Fewer
    groups are split than there are processes; the prompt of a split group is computed again.
    """
    uses, shared = Counter(prompt for prompt, _ in samples), shared_start(samples)
    work = [(len(prompt) - shared) / uses[prompt] + len(response) for prompt, response in samples]
    total = sum(work)
    parts: list[list[int]] = [[] for _ in range(processes)]
    for position, (own, done) in enumerate(zip(work, accumulate(work), strict=True)):
        parts[int((done - own / 2) * processes / total)].append(position)
    return parts


def shared_start(samples: Sequence[Tokens]) -> int:
    """Return the number of tokens that all prompts have in common at their start."""
    columns = zip(*(sample.prompt for sample in samples), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
