"""The optimizer's state on the GPU or in host memory."""

from pathlib import Path

import deepspeed
import pytest

from microbudget_rl.learner.optimizer import SHM_COMM
from tests.learner.helpers import Make, batch, same, update, weights

pytestmark = pytest.mark.long


def test_optimizer_without_offload_makes_the_same_steps(make: Make, tmp_path: Path):
    first, deepspeed.ops.__compatible_ops__[SHM_COMM] = make(), True
    second = make({"learner.offload": "none"})
    assert not deepspeed.ops.__compatible_ops__[SHM_COMM], "a collective would be compiled for minutes"
    start = weights(first)
    for version in range(3):
        update(first, batch(version))
        update(second, batch(version))
    for name, value in weights(first).items():
        assert (weights(second)[name] - value).norm() < 1e-3 * (value - start[name]).norm()
    second.save(tmp_path)
    third = make({"learner.offload": "none"})
    third.restore(tmp_path, 0)
    for one in (second, third):
        update(one, batch(3))
    assert same(weights(second), weights(third))
