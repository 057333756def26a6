"""From weighed groups to training examples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from microbudget_rl.actors.messages import Group
from microbudget_rl.learner.packing import Tokens


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


def examples(groups: Iterable[Group], regularised: bool) -> list[Example]:
    """Return the samples that have a gradient: those with an advantage, and all that count if there is a KL or entropy
    term.
    """
    return [
        Example(
            f"group {group.index} sample {number}",
            Tokens(group.problem.prompt_ids, sample.token_ids),
            sample.logprobs,
            advantage,
        )
        for group in groups
        for number, (sample, advantage) in enumerate(zip(group.samples, group.advantages, strict=True))
        if sample.token_ids and advantage is not None and (advantage or regularised)
    ]
