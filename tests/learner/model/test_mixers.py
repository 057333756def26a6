"""Models that mix tokens by a convolution or a state: the gradient does not depend on packing.

That a sample alone has the log-probabilities of transformers is checked when its policy is made.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microbudget_rl.learner.model.policy import Policy
from microbudget_rl.learner.packing import MicroBatch, Tokens, pack
from tests.learner.model.families import FAMILIES, adapt, build

BY_NAME = {family.name: family for family in FAMILIES}

shapes = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=3)), min_size=1, max_size=3
)


@cache
def policy(name: str) -> Policy:
    family = BY_NAME[name]
    model = adapt(build(family), family.targets)
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.05)
    return Policy(model, 1.0, 16, checkpointing=True).train()


def gradient(policy: Policy, parts: Sequence[MicroBatch]) -> dict[str, Tensor]:
    policy.zero_grad()
    for part in parts:
        policy(part)[0].square().sum().backward()
    return {name: weight.grad.clone() for name, weight in policy.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", ["Qwen 3.5, text alone", "LFM2", "Granite 4, dense", "Falcon-H1"])
@settings(max_examples=5)
@given(shapes=shapes, shared=st.integers(0, 4), budget=st.integers(1, 120))
def test_gradient_is_that_of_each_sample_alone(name: str, shapes: list[Any], shared: int, budget: int) -> None:
    learner, chance = policy(name), torch.Generator().manual_seed(1)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(128, 256, (count,), generator=chance).tolist())

    start = ids(shared)
    prompts = [(start + ids(count), ends) for count, ends in shapes]
    samples = [Tokens(prompt, ids(length)) for prompt, ends in prompts for length in ends]
    ours = gradient(learner, pack(samples, budget, whole=True))
    expected = gradient(learner, [part for sample in samples for part in pack([sample], budget, whole=True)])
    largest = max(value.abs().max() for value in expected.values())
    assert learner.mixes
    assert ours.keys() == expected.keys()
    assert max((ours[key] - expected[key]).abs().max() for key in ours) < 1e-4 * largest
