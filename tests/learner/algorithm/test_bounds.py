"""No token moves the weights without bound: accepted settings have a bound, refused ones an example without."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.checks import algorithm_faults, slope_bound
from microbudget_rl.conf.schema import AlgorithmConfig
from microbudget_rl.learner.losses import MAX_PENALTY_SLOPE, Observed, Totals, policy_loss
from microbudget_rl.learner.mismatch import MAX_WEIGHT

LARGEST = 50.0
"""Largest weight of a token in any accepted combination, relative to its advantage: a slope of 10, a weight of 5."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "surrogate": ("clip", "cispo", "sapo"),
    "ratio": ("token", "sequence"),
    "clip_low": (None, 0.2),
    "clip_high": (None, 4e-4, 0.2, 9.0),
    "dual_clip": (None, 3.0, 10.0),
    "mismatch": tuple(MAX_WEIGHT),
    "steps_per_batch": (1, 2),
}
COMBINATIONS = [
    *(AlgorithmConfig(**preset) for preset in table("algorithms").values()),
    *(AlgorithmConfig(**dict(zip(CHOICES, values, strict=True))) for values in product(*CHOICES.values())),
]


ACCEPTED = [algorithm for algorithm in COMBINATIONS if not [*algorithm_faults(algorithm)]]
REFUSED = [algorithm for algorithm in COMBINATIONS if [*algorithm_faults(algorithm)]]


def slopes(algorithm: AlgorithmConfig, advantage: float, ratios: list[float], deltas: list[float]) -> torch.Tensor:
    """Return |∂L/∂θ| of the tokens of one response, as if each were the whole batch.

    ratios: θ − old, and 0 where they cannot differ. deltas: old − engine, and 0 in bypass.
    """
    theta = torch.linspace(-3, -30, len(ratios), dtype=torch.float64).requires_grad_()
    old = theta.detach() - torch.tensor(ratios, dtype=torch.float64) * algorithm.ratio_acts
    engine = old - torch.tensor(deltas, dtype=torch.float64) * (algorithm.mismatch != "bypass")
    base = theta.detach() + torch.tensor(ratios, dtype=torch.float64) if algorithm.kl else None
    size = len(ratios)
    observed = Observed(engine, old, torch.full_like(engine, advantage), torch.tensor([size]), base)
    totals = Totals(samples=1, tokens=1, limit=1)
    loss = policy_loss(replace(algorithm, aggregation="constant"), totals, theta, torch.zeros(size), observed)
    return torch.autograd.grad(loss, theta)[0].abs()


NATS = st.lists(st.floats(-25, 25), min_size=1, max_size=4)


@pytest.mark.parametrize("kl", [0.0, 0.5])
@given(algorithm=st.sampled_from(ACCEPTED), advantage=st.sampled_from([1.0, -1.0]), ratios=NATS, data=st.data())
def test_accepted_settings_have_a_bound(
    kl: float, algorithm: AlgorithmConfig, advantage: float, ratios: list[float], data: st.DataObject
):
    deltas = data.draw(st.lists(st.floats(-25, 25), min_size=len(ratios), max_size=len(ratios)))
    _, bound = slope_bound(algorithm, int(advantage))
    assert bound is not None
    most = MAX_WEIGHT[algorithm.mismatch] * bound
    assert most <= LARGEST
    found = slopes(replace(algorithm, kl=kl), advantage, ratios, deltas)
    assert found.max() <= (most + kl * MAX_PENALTY_SLOPE) * (1 + 1e-9)


def test_refused_settings_have_a_token_without_bound():
    assert REFUSED
    assert all(AlgorithmConfig(**preset) in ACCEPTED for preset in table("algorithms").values())
    for algorithm in REFUSED:
        assert any(slopes(algorithm, sign, [19.0], [0.0]).item() > 1e6 for sign in (1.0, -1.0)), algorithm


@pytest.mark.parametrize("ratio", [25.0, 19.9, -25.0])
def test_a_sequence_ratio_beyond_the_clamp_has_no_slope(ratio: float):
    unbounded = AlgorithmConfig(ratio="sequence", clip_low=None, clip_high=None, dual_clip=None)
    found = slopes(unbounded, -1.0, [ratio, ratio], [0.0, 0.0])
    assert found.tolist() == pytest.approx([torch.tensor(ratio).exp().item() if abs(ratio) < 20 else 0.0] * 2, rel=1e-5)
