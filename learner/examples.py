"""From weighed groups to training examples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microbudget_rl.actors.messages import Group, Sample
from microbudget_rl.conf.schema import AlgorithmConfig
from microbudget_rl.learner.losses import Observed
from microbudget_rl.learner.packing import Tokens


@dataclass(frozen=True)
class Example:
    """A sample to learn from.

    name: for messages, such as "group 12 sample 3"
    engine: the engine's log-probability of each sampled token
    version: of the policy that sampled it
    """

    name: str
    tokens: Tokens
    engine: Sequence[float]
    advantage: float
    version: int = 0


def examples(groups: Iterable[Group], regularised: bool) -> list[Example]:
    """Return the samples that have a gradient: those with an advantage, and all that count if there is a KL or entropy
    term.
    """
    return [
        Example(
            f"group {group.index} sample {number}",
            tokens_of(group, sample),
            sample.logprobs,
            advantage,
            group.version,
        )
        for group in groups
        for number, (sample, advantage) in enumerate(zip(group.samples, group.advantages, strict=True))
        if sample.token_ids and advantage is not None and (advantage or regularised)
    ]


def tokens_of(group: Group, sample: Sample) -> Tokens:
    """Return the prompt and response of one of a group's samples."""
    return Tokens(group.problem.prompt_ids, sample.token_ids, sample.given)


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
