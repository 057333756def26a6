"""Checks before an evaluation that the adapter changes the engines' answers: else it would be one of the base model."""

from collections.abc import Sequence
from math import fsum

from actors.adapter_check.probes import Answers, Probes
from actors.adapter_check.swap_check import BAND, SAME
from actors.messages import AdapterRef, Problem
from actors.protocols import Engine
from conf.errors import BadInput
from conf.schema import Config


async def check_effect(config: Config, engine: Engine, adapter: AdapterRef, problems: Sequence[Problem]) -> None:
    """Raise BadInput if some engine answers the problems under an adapter as it does without."""
    probes = Probes(config, problems)
    base, again, adapted = [await probes.ask(engine, policy) for policy in (None, None, adapter)]
    if any(unchanged(*answers) for answers in zip(base, again, adapted, strict=True)):
        raise BadInput(
            f"adapter={adapter.path}: its answers to {len(problems)} problems are the base model's, word for word and "
            "with the same probabilities: it does not change the model, or is not applied; name another, or leave it "
            "out to evaluate the base model"
        )


def unchanged(base: Answers, again: Answers, adapted: Answers) -> bool:
    """Whether one engine's answers under an adapter are the base model's, within the noise between that model's two.

    All to the same problems under the same seeds.
    """
    if _tokens(adapted) != _tokens(base) == _tokens(again):
        return False
    return difference(base, adapted) <= max(SAME, BAND * difference(base, again))


def difference(left: Answers, right: Answers) -> float:
    """Return the mean |Δ log p| over the tokens before two answers part; 0 if they part at once."""
    deltas = []
    for group, other_group in zip(left, right, strict=True):
        a, b = group.samples[0], other_group.samples[0]
        for token, other, p, q in zip(a.token_ids, b.token_ids, a.logprobs, b.logprobs, strict=False):
            if token != other:
                break
            deltas.append(abs(p - q))
    return fsum(deltas) / len(deltas) if deltas else 0.0


def _tokens(answers: Answers) -> list[list[int]]:
    return [list(group.samples[0].token_ids) for group in answers]
