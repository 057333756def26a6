import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.losses import importance_weights, mismatch, policy_loss

CAP = 2.0
floats = st.floats(-30.0, 0.0)
tokens = st.lists(st.tuples(floats, floats, st.floats(-3.0, 3.0)), min_size=1, max_size=40)


def columns(rows: list[tuple[float, ...]], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return list(torch.tensor(rows, dtype=dtype).T.contiguous())


@given(tokens)
def test_loss_and_gradient(rows: list[tuple[float, float, float]]) -> None:
    logprobs, engine, advantages = columns(rows)
    logprobs.requires_grad_()
    loss = policy_loss(logprobs, engine, advantages, 100, CAP)
    loss.backward()
    parts = [-min(math.exp(max(-20.0, min(20.0, old - eng))), CAP) * adv / 100 for old, eng, adv in rows]
    assert loss.item() == pytest.approx(sum(parts), abs=1e-10)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx(parts, abs=1e-10)


@given(tokens, st.data())
def test_parts_add_up(rows: list[tuple[float, float, float]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(rows)))
    logprobs, engine, advantages = columns(rows)
    whole = policy_loss(logprobs, engine, advantages, 7, CAP)
    parts = [policy_loss(logprobs[s], engine[s], advantages[s], 7, CAP) for s in (slice(cut), slice(cut, None))]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-10)


def test_fp32_agrees_with_float64() -> None:
    rng = random.Random(0)
    rows = [(rng.uniform(-5, 0), rng.uniform(-5, 0), rng.gauss(0, 1)) for _ in range(1000)]
    single, double = (policy_loss(*columns(rows, dtype), 1000, CAP).item() for dtype in (torch.float32, torch.float64))
    assert single == pytest.approx(double, rel=1e-5)


def test_weights_are_truncated_and_finite() -> None:
    old = torch.tensor([0.0, 0.0, -1000.0, 0.0], requires_grad=True)
    weights = importance_weights(old, torch.tensor([0.0, -math.log(1.5), 0.0, -1000.0]), CAP)
    assert weights.tolist() == pytest.approx([1.0, 1.5, math.exp(-20), CAP])
    assert not weights.requires_grad


def test_mismatch() -> None:
    old = torch.tensor([-1.0] * 98 + [-1.0, -1.0], dtype=torch.float64)
    engine = old - torch.tensor([0.0] * 98 + [math.log(1.5), math.log(4.0)], dtype=torch.float64)
    got = mismatch(old, engine, CAP)
    assert got["abs_mean"] == pytest.approx((math.log(1.5) + math.log(4.0)) / 100)
    assert got["p99"] == pytest.approx(math.log(1.5))
    assert got["max"] == pytest.approx(math.log(4.0))
    assert got["truncated"] == pytest.approx(0.01)
    assert got["effective_share"] == pytest.approx((98 + 1.5 + 2) ** 2 / (100 * (98 + 1.5**2 + 2**2)))


def test_mismatch_of_one_token() -> None:
    got = mismatch(torch.tensor([-1.0]), torch.tensor([-1.25]), CAP)
    assert got == pytest.approx(
        {"abs_mean": 0.25, "p99": 0.25, "max": 0.25, "effective_share": 1.0, "truncated": 0.0}, abs=1e-6
    )
