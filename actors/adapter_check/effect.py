"""Does an adapter change what an engine says? An evaluation of one that does not would be of the base model."""

from collections.abc import Sequence
from math import fsum

from actors.adapter_check.canary import BAND, SAME, Answers
from actors.adapter_check.probes import Probes
from actors.messages import AdapterRef, Problem, Sample
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
    """Whether an engine's answers under an adapter are the base model's, which it gave twice, within the noise of that.

    All to the same problems under the same seeds.
    """
    noise, apart = difference(base, again), difference(base, adapted)
    if parted(base, adapted) and not parted(base, again):
        return False
    return apart <= max(SAME, BAND * noise)


def difference(left: Answers, right: Answers) -> float:
    """Mean |Δ log p| over the tokens before two answers part; 0 if they part at once."""
    deltas = [delta for a, b in _pairs(left, right) for delta in _deltas(a, b)]
    return fsum(deltas) / len(deltas) if deltas else 0.0


def parted(left: Answers, right: Answers) -> bool:
    """Whether some answer has other tokens."""
    return any(a.token_ids != b.token_ids for a, b in _pairs(left, right))


def _pairs(left: Answers, right: Answers) -> list[tuple[Sample, Sample]]:
    return [(a.samples[0], b.samples[0]) for a, b in zip(left, right, strict=True)]


def _deltas(left: Sample, right: Sample) -> list[float]:
    deltas = []
    for token, other, p, q in zip(left.token_ids, right.token_ids, left.logprobs, right.logprobs, strict=False):
        if token != other:
            break
        deltas.append(abs(p - q))
    return deltas
