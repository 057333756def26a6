"""The optimizer's state on the GPU or in host memory, and the learning rate."""

from pathlib import Path

import deepspeed
import pytest

from microbudget_rl.conf.schema import LearnerConfig
from microbudget_rl.learner.optimizer import SHM_COMM, learning_rate
from tests.learner.helpers import Build, Make, batch, same, update, weights


def test_optimizer_without_offload_makes_the_same_steps(make: Make, build_group: Build, tmp_path: Path) -> None:
    first, deepspeed.ops.__compatible_ops__[SHM_COMM] = make(), True
    second = make({"learner.offload": "none"})
    assert not deepspeed.ops.__compatible_ops__[SHM_COMM], "a collective would be compiled for minutes"
    start = weights(first)
    for version in range(3):
        update(first, batch(build_group, version))
        update(second, batch(build_group, version))
    for name, value in weights(first).items():
        assert (weights(second)[name] - value).norm() < 1e-3 * (value - start[name]).norm()
    second.save(tmp_path)
    third = make({"learner.offload": "none"})
    third.restore(tmp_path, 0)
    for one in (second, third):
        update(one, batch(build_group, 3))
    assert same(weights(second), weights(third))


def rates(schedule: str, final_rate: float = 0.1) -> list[float]:
    config = LearnerConfig(learning_rate=2.0, schedule=schedule, final_rate=final_rate)
    return [learning_rate(config, 5, progress) for progress in (0.0, 0.5, 1.0)]


def test_schedules_span_the_budget() -> None:
    assert rates("constant") == pytest.approx([2.0, 2.0, 2.0])
    assert rates("linear") == pytest.approx([2.0, 1.1, 0.2])
    assert rates("cosine", 0.0) == pytest.approx([2.0, 1.0, 0.0])


def test_warmup_is_linear_and_never_zero() -> None:
    config = LearnerConfig(learning_rate=1.0, warmup_updates=3)
    assert [learning_rate(config, update, 0.0) for update in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert [learning_rate(config, update, 0.0, 4) for update in range(4)] == pytest.approx([0.5, 1.0, 1.0, 1.0])
