import pytest

from conf.errors import BadInput
from conf.schema import LearnerConfig
from learner.schedule import learning_rate


def rates(schedule: str, final_rate: float = 0.1) -> list[float]:
    config = LearnerConfig(learning_rate=2.0, schedule=schedule, final_rate=final_rate)
    return [learning_rate(config, 5, progress) for progress in (0.0, 0.5, 1.0)]


def test_schedules_span_the_budget() -> None:
    assert rates("constant") == pytest.approx([2.0, 2.0, 2.0])
    assert rates("linear") == pytest.approx([2.0, 1.1, 0.2])
    assert rates("cosine", 0.0) == pytest.approx([2.0, 1.0, 0.0])
    with pytest.raises(BadInput, match=r"learner\.schedule=step"):
        rates("step")


def test_warmup_is_linear_and_never_zero() -> None:
    config = LearnerConfig(learning_rate=1.0, warmup_updates=3)
    assert [learning_rate(config, update, 0.0) for update in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
