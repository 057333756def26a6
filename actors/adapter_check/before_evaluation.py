"""The adapter check before an evaluation: does the adapter change the engines' responses?"""

from collections.abc import Sequence
from math import fsum

from actors.adapter_check.after_sync import BAND, SAME
from actors.adapter_check.prompts import CheckPrompts, Responses, tokens_of
from actors.messages import AdapterRef, Problem
from actors.protocols import Engine
from conf.errors import BadInput
from conf.schema import Config


async def check_before_evaluation(
    config: Config, engine: Engine, adapter: AdapterRef, problems: Sequence[Problem]
) -> None:
    """Raise BadInput if some engine responds under an adapter as it does without one."""
    if await without_effect(CheckPrompts(config, problems), engine, adapter):
        raise BadInput(f"adapter={adapter.path}: an engine's responses do not change with it: name another adapter")


async def without_effect(prompts: CheckPrompts, engine: Engine, adapter: AdapterRef) -> bool:
    """Whether some engine responds under an adapter as it does without one."""
    base, again, adapted = [await prompts.ask(engine, policy) for policy in (None, None, adapter)]
    return any(unchanged(*responses) for responses in zip(base, again, adapted, strict=True))


def unchanged(base: Responses, again: Responses, adapted: Responses) -> bool:
    """Whether an engine's responses differ under an adapter no more than the base model's differ when repeated.

    All are to the same prompts with the same seeds.
    """
    if tokens_of(adapted) != tokens_of(base) == tokens_of(again):
        return False
    return difference(base, adapted) <= max(SAME, BAND * difference(base, again))


def difference(left: Responses, right: Responses) -> float:
    """Return the mean |Δ log p| over the tokens before two responses part; 0 if they part at once."""
    deltas = []
    for group, other_group in zip(left, right, strict=True):
        a, b = group.samples[0], other_group.samples[0]
        for token, other, p, q in zip(a.token_ids, b.token_ids, a.logprobs, b.logprobs, strict=False):
            if token != other:
                break
            deltas.append(abs(p - q))
    return fsum(deltas) / len(deltas) if deltas else 0.0
