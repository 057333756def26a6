"""Models that mix tokens by a convolution or a state: the gradient does not depend on packing."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microbudget_rl.learner.model.policy import Policy
from microbudget_rl.learner.packing import MicroBatch, Tokens, pack
from tests.learner.model.families import BY_NAME, adapt, build, trained
from tests.learner.test_packing import sample_lists

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["Qwen 3.5, text alone", "LFM2", "Granite 4, dense", "Falcon-H1"])
def policy(request: pytest.FixtureRequest) -> Policy:
    family = BY_NAME[request.param]
    return Policy(trained(adapt(build(family), family.targets)), 1.0, 16, checkpointing=True).train()


def gradient(policy: Policy, parts: Sequence[MicroBatch]) -> dict[str, Tensor]:
    policy.zero_grad()
    for part in parts:
        policy(part)[0].square().sum().backward()
    return {name: weight.grad.clone() for name, weight in policy.named_parameters() if weight.grad is not None}


@settings(max_examples=5)
@given(samples=sample_lists(), budget=st.integers(1, 120))
def test_gradient_is_that_of_each_sample_alone(policy: Policy, samples: list[Tokens], budget: int):
    ours = gradient(policy, pack(samples, budget, policy.mixes))
    expected = gradient(policy, [part for each in samples for part in pack([each], budget, whole=True)])
    largest = max([value.abs().max().item() for value in expected.values()], default=0.0)
    assert ours.keys() == expected.keys()
    assert all((ours[key] - expected[key]).abs().max() <= 1e-4 * largest for key in ours)
