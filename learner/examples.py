"""From verified groups to the examples to learn from: their advantages, and which rank of the learner gets which."""

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
    """The token ids of a sample: at least one of the prompt, and the response to it."""

    prompt: tuple[int, ...]
    response: Sequence[int]


@dataclass(frozen=True)
class Example:
    """A sample to learn from.

    name: for people, "group 12 sample 3"
    engine: the engine's log-probability of each response token
    """

    name: str
    tokens: Tokens
    engine: Sequence[float]
    advantage: float


def examples(groups: Iterable[Group], algorithm: AlgorithmConfig) -> Iterator[Example]:
    """Yield the samples with a gradient: those with an advantage, and with a KL or entropy term all others too.

    Samples without a verdict are left out. With `mask_truncated` so are those that hit the limit, after they have
    counted in their group's baseline.
    """
    for group in groups:
        rewards = torch.tensor([reward.total for reward in group.rewards], dtype=torch.float64)
        masked = torch.tensor([reward.masked for reward in group.rewards])
        advantages = group_advantages(rewards, masked, algorithm.advantages).tolist()
        rows = zip(group.samples, group.rewards, advantages, strict=True)
        for number, (sample, reward, advantage) in enumerate(rows):
            left_out = reward.masked or (algorithm.mask_truncated and sample.truncated)
            if sample.token_ids and not left_out and (advantage or algorithm.regularised):
                tokens = Tokens(group.problem.prompt_ids, sample.token_ids)
                yield Example(f"group {group.index} sample {number}", tokens, sample.logprobs, advantage)


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


def divide(samples: Sequence[Tokens], ranks: int) -> list[list[int]]:
    """Return each rank's positions in `samples`: neighbours together, about the same work for all.

    Work is input tokens; a prompt counts once for all its samples, without what all prompts begin with: every rank has
    that. Every rank is within one sample of the mean and can be left with none. At most `ranks` - 1 groups are cut, and
    their prompts computed twice.
    """
    uses, shared = Counter(prompt for prompt, _ in samples), shared_start(samples)
    work = [(len(prompt) - shared) / uses[prompt] + len(response) for prompt, response in samples]
    total = sum(work)
    parts: list[list[int]] = [[] for _ in range(ranks)]
    for position, (own, done) in enumerate(zip(work, accumulate(work), strict=True)):
        parts[int((done - own / 2) * ranks / total)].append(position)
    return parts


def shared_start(samples: Sequence[Tokens]) -> int:
    """Return how many tokens all prompts begin with."""
    columns = zip(*(sample.prompt for sample in samples), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
