"""The optimizer's state on the GPU or in host memory, and the learning rate."""

from pathlib import Path

import pytest

from conf.schema import Config, LearnerConfig
from conf.settings import changed
from learner.learner import LoraLearner
from learner.optimizer import learning_rate
from tests.learner.helpers import Build, batch, same, update, weights


def test_optimizer_without_offload_makes_the_same_steps(
    tiny_config: Config, tiny_model: Path, tmp_path: Path, build_group: Build
) -> None:
    first = LoraLearner(tiny_config, str(tiny_model), tmp_path / "a")
    tiny_config = changed(tiny_config, {"learner.offload": "none"})
    second = LoraLearner(tiny_config, str(tiny_model), tmp_path / "b")
    start = weights(first)
    for version in range(3):
        update(first, batch(build_group, version))
        update(second, batch(build_group, version))
    for name, value in weights(first).items():
        assert (weights(second)[name] - value).norm() < 1e-3 * (value - start[name]).norm()
    (tmp_path / "checkpoint").mkdir()
    second.save(tmp_path / "checkpoint")
    third = LoraLearner(tiny_config, str(tiny_model), tmp_path / "c")
    third.restore(tmp_path / "checkpoint", 0)
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
