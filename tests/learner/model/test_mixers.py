"""Models that mix tokens by a convolution or a state: the gradient does not depend on packing.

That a sample alone has the log-probabilities of transformers is checked when its policy is made.
"""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microbudget_rl.learner.model.policy import Policy
from microbudget_rl.learner.packing import MicroBatch, Tokens, pack
from tests.learner.model.families import BY_NAME, adapt, build
from tests.learner.test_packing import sample_lists


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
@given(samples=sample_lists(), budget=st.integers(1, 120))
def test_gradient_is_that_of_each_sample_alone(name: str, samples: list[Tokens], budget: int) -> None:
    learner = policy(name)
    assert learner.mixes
    ours = gradient(learner, pack(samples, budget, whole=True))
    expected = gradient(learner, [part for sample in samples for part in pack([sample], budget, whole=True)])
    largest = max([value.abs().max().item() for value in expected.values()], default=0.0)
    assert ours.keys() == expected.keys()
    assert all((ours[key] - expected[key]).abs().max() <= 1e-4 * largest for key in ours)
