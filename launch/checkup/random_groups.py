"""Groups of random tokens, for measurements to which the texts do not matter."""

import random
from collections.abc import Iterable

from actors.messages import AdapterRef, Group, Problem, Reward, Sample, Status, Verdict

TOKEN_IDS = (100, 49_000)
"""Ordinary tokens of the embedded model's vocabulary."""


def random_ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(*TOKEN_IDS) for _ in range(count))


def random_group(rng: random.Random, index: int, prompt: int, lengths: Iterable[int], adapter: AdapterRef) -> Group:
    """Return a group with a prompt and responses of so many tokens; every other response earns 1."""
    problem = Problem(str(index), "", random_ids(rng, prompt), "")
    samples = tuple(Sample(random_ids(rng, length), (-8.0,) * length, "", "stop") for length in lengths)
    verdict = Verdict(0.0, Status.WRONG, None, 0.0)
    return Group(
        index, problem, adapter, samples, tuple(Reward(float(i % 2), {}, verdict) for i in range(len(samples)))
    )
