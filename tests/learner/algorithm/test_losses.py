"""The loss in every combination of surrogate, ratio, clip, aggregation and mismatch against `reference.py`."""

import math
import random
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.conf.schema import AlgorithmConfig
from microbudget_rl.learner.losses import Observed, Totals, clipped_tokens, imitation_loss, policy_loss
from tests.learner.algorithm import reference
from tests.learner.algorithm.reference import Response

METHODS = ["token_tis", "sequence_mask", "icepop", "bypass"]
AGGREGATIONS = ["token_mean", "sequence_mean", "constant"]
SURROGATES: list[dict[str, Any]] = [
    {},
    {"clip_low": 0.2, "clip_high": 0.28},
    {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 1.5},
    {"clip_high": 0.3, "surrogate": "cispo"},
    {"clip_low": 0.1, "clip_high": 0.3, "surrogate": "cispo"},
    {"surrogate": "sapo"},
]
REGULARISERS = [{}, {"kl": 0.1, "entropy": 0.01}]
TOTALS = Totals(samples=9, tokens=57, limit=16)


def responses(seed: int, lengths: tuple[int, ...], spread: float = 0.7) -> list[Response]:
    rng = random.Random(seed)

    def near(values: list[float]) -> list[float]:
        return [value + rng.gauss(0, spread) for value in values]

    found = []
    for length in lengths:
        theta = [rng.uniform(-6, -0.1) for _ in range(length)]
        old = near(theta)
        entropy = [rng.uniform(0, 5) for _ in range(length)]
        found.append(Response(theta, old, near(old), near(theta), entropy, rng.gauss(0, 1)))
    return found


def flat(rows: list[list[float]], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=dtype)


def tensors(
    algorithm: AlgorithmConfig, found: list[Response], dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, Observed]:
    lengths = torch.tensor([len(response.theta) for response in found])
    advantages = flat([[each.advantage] * len(each.theta) for each in found], dtype)
    base = flat([response.base for response in found], dtype) if algorithm.kl else None
    engine, old = (flat([getattr(r, name) for r in found], dtype) for name in ("engine", "old"))
    theta, entropy = (flat([getattr(r, name) for r in found], dtype) for name in ("theta", "entropy"))
    return theta.requires_grad_(), entropy.requires_grad_(), Observed(engine, old, advantages, lengths, base)


def make(surrogate: dict[str, Any], **others: Any) -> AlgorithmConfig:
    return AlgorithmConfig(**{"clip_low": None, "clip_high": None, "dual_clip": None, **surrogate, **others})


def compare(algorithm: AlgorithmConfig, found: list[Response]) -> None:
    """Compare value and gradient in float64 to 1e-10, and the value in float32 to 1e-5."""
    if algorithm.mismatch == "bypass":
        for response in found:
            response.old = response.engine
    sizes = (TOTALS.samples, TOTALS.tokens, TOTALS.limit)
    expected = reference.loss(algorithm, found, *sizes)
    theta, entropy, observed = tensors(algorithm, found)
    loss = policy_loss(algorithm, TOTALS, theta, entropy, observed)
    assert loss.item() == pytest.approx(expected, abs=1e-10, rel=1e-10)
    (gradient,) = torch.autograd.grad(loss, theta)
    slopes = [reference.slope(algorithm, r, token, *sizes) for r in found for token in range(len(r.theta))]
    assert gradient.tolist() == pytest.approx(slopes, abs=1e-10, rel=1e-10)
    single = policy_loss(algorithm, TOTALS, *tensors(algorithm, found, torch.float32))
    scale = sum(abs(reference.loss(algorithm, [response], *sizes)) for response in found)
    assert abs(single.item() - expected) <= 1e-5 * scale


COMBINATIONS = [
    make(surrogate, ratio=level, aggregation=aggregation, mismatch=method, **regularisers)
    for surrogate, level, aggregation, method, regularisers in product(
        SURROGATES, ["token", "sequence"], AGGREGATIONS, METHODS, REGULARISERS
    )
]


@pytest.mark.long
def test_every_combination():
    for algorithm in COMBINATIONS:
        for seed, lengths in enumerate([(3, 1, 8, 5), (1,), (16, 2)]):
            compare(algorithm, responses(seed, lengths))


@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 16), min_size=1, max_size=6).map(tuple),
    st.sampled_from([0.0, 0.05, 0.7, 4.0]),
    st.sampled_from(COMBINATIONS),
)
def test_any_shape_and_spread(seed: int, lengths: tuple[int, ...], spread: float, algorithm: AlgorithmConfig):
    compare(algorithm, responses(seed, lengths, spread))


@given(st.lists(st.lists(st.floats(-50, 0), min_size=1, max_size=16), min_size=1, max_size=6))
def test_imitation_is_the_mean_over_all_responses_tokens_in_any_parts(found: list[list[float]]):
    tokens = [value for response in found for value in response]
    totals = Totals(len(found), len(tokens), 16)
    theta = torch.tensor(tokens, dtype=torch.float64, requires_grad=True)
    loss = torch.stack([imitation_loss(part, totals) for part in theta.split([len(each) for each in found])]).sum()
    assert loss.item() == pytest.approx(sum(-value for value in tokens) / len(tokens), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, theta)
    assert gradient.tolist() == pytest.approx([-1 / len(tokens)] * len(tokens))


def test_far_apart_probabilities_stay_finite():
    for method, level in product(METHODS, ["token", "sequence"]):
        algorithm = make({"clip_low": 0.2, "clip_high": 0.2}, mismatch=method, ratio=level, kl=0.1)
        values = torch.tensor([-1000.0, 0.0, -1000.0], requires_grad=True)
        other = torch.tensor([0.0, -1000.0, 0.0])
        observed = Observed(other, other, torch.tensor([1.0, -1.0, 1.0]), torch.tensor([2, 1]), other)
        loss = policy_loss(algorithm, TOTALS, values, torch.zeros(3), observed)
        (gradient,) = torch.autograd.grad(loss, values)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_tokens_count_as_clipped_where_the_clip_acts():
    ratios, advantages = [0.5, 0.5, 1.0, 2.0, 2.0, 9.0], [1.0, -1.0, 1.0, 1.0, -1.0, -1.0]
    theta = torch.tensor([math.log(value) for value in ratios])
    zeros, lengths = torch.zeros(6), torch.tensor([2, 4])
    observed = Observed(zeros, zeros, torch.tensor(advantages), lengths)
    clip = make({"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}, mismatch="bypass")
    assert clipped_tokens(clip, theta, observed) == {"low": 1, "high": 1, "dual": 1}
    cispo = make({"clip_low": 0.2, "clip_high": 0.2, "surrogate": "cispo"}, mismatch="bypass")
    assert clipped_tokens(cispo, theta, observed) == {"low": 2, "high": 3, "dual": 0}
    assert clipped_tokens(make({}), theta, observed) == {"low": 0, "high": 0, "dual": 0}
