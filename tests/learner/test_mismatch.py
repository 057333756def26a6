import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.learner.mismatch import describe_mismatch, k3


def test_description():
    own = torch.tensor([-1.0] * 100, dtype=torch.float64)
    steps = [0.0] * 97 + [math.log(0.25), math.log(1.5), math.log(4.0)]
    engine = own - torch.tensor(steps, dtype=torch.float64)
    lengths = torch.tensor([60, 40])
    got = describe_mismatch(own, engine, lengths, "token_tis")
    assert got["abs_mean"] == pytest.approx((math.log(4.0) + math.log(1.5) + math.log(4.0)) / 100)
    assert (got["p99"], got["max"]) == pytest.approx((math.log(4.0), math.log(4.0)))
    assert got["k3"] == pytest.approx(sum(math.exp(d) - d - 1 for d in steps) / 100)
    assert got["ess"] == pytest.approx((97 + 0.25 + 1.5 + 2) ** 2 / (100 * (97 + 0.25**2 + 1.5**2 + 4)))
    assert (got["clipped"], got["masked"]) == (pytest.approx(0.01), 0)
    icepop = describe_mismatch(own, engine, lengths, "icepop")
    assert (icepop["clipped"], icepop["masked"]) == (0, pytest.approx(0.01))
    sequence = describe_mismatch(own, engine - 0.1, lengths, "sequence_mask")
    assert (sequence["clipped"], sequence["masked"]) == (0, 1)
    assert sequence["ess"] == 0
    bypass = describe_mismatch(own, engine, lengths, "bypass")
    assert bypass["ess"] == pytest.approx((97 + 5.75) ** 2 / (100 * (97 + 0.25**2 + 1.5**2 + 16)))
    assert (bypass["clipped"], bypass["masked"]) == (0, 0)


@given(st.floats(-30, 0), st.floats(-30, 0))
def test_k3(policy: float, reference: float):
    got = k3(torch.tensor([policy], dtype=torch.float64), torch.tensor([reference], dtype=torch.float64)).item()
    difference = max(-20.0, min(20.0, reference - policy))
    assert got == pytest.approx(math.exp(difference) - difference - 1, abs=1e-10, rel=1e-10)
    assert got >= 0


@given(st.floats(-0.0078125, 0.0078125, width=32))
def test_k3_keeps_its_precision_in_float32(difference: float):
    got = k3(torch.tensor([0.0]), torch.tensor([difference])).item()
    assert got == pytest.approx(math.expm1(difference) - difference, abs=1.2e-7 * abs(difference))
