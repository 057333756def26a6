"""The learning rate: warm-up, schedule, and its limit by the policy's movement."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.messages import AdapterRef, Batch
from microbudget_rl.conf.schema import LearnerConfig
from microbudget_rl.learner.rate import FEWEST, RECENT, Brake, learning_rate
from tests.learner.helpers import Build, Make, batch, update

MOST = 0.03


def rates(schedule: str, final_rate: float = 0.1) -> list[float]:
    config = LearnerConfig(learning_rate=0.5, schedule=schedule, final_rate=final_rate)
    return [learning_rate(config, 5, progress) for progress in (0.0, 0.5, 1.0)]


def test_schedules_span_the_budget() -> None:
    assert rates("constant") == pytest.approx([0.5, 0.5, 0.5])
    assert rates("linear") == pytest.approx([0.5, 0.275, 0.05])
    assert rates("cosine", 0.0) == pytest.approx([0.5, 0.25, 0.0])


def test_warmup_is_linear_and_never_zero() -> None:
    config = LearnerConfig(learning_rate=1.0, warmup_updates=3)
    assert [learning_rate(config, update, 0.0) for update in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert [learning_rate(config, update, 0.0, 4) for update in range(4)] == pytest.approx([0.5, 1.0, 1.0, 1.0])


@given(
    peak=st.floats(1e-7, 1.0),
    excess=st.floats(1e-3, 1e3),
    noise=st.floats(0.0, MOST / 200),
    factors=st.lists(st.floats(0.1, 1.0), min_size=FEWEST + 1),
)
def test_a_rate_too_high_is_lowered_once_enough_updates_say_so(
    peak: float, excess: float, noise: float, factors: list[float]
) -> None:
    """excess: KL at the peak, as a multiple of the largest that is allowed. factors: those of the schedule."""
    brake, made = Brake(), []
    brake.see(noise, 0.0)
    for factor in factors:
        made.append(brake.kept(peak, MOST))
        brake.last = peak * factor * made[-1]
        brake.see(MOST * excess * (brake.last / peak) ** 2 + noise, 1.0)
    assert made[:FEWEST] == [1.0] * FEWEST
    assert made[FEWEST:] == pytest.approx([min(1.0, excess**-0.5)] * (len(factors) - FEWEST), rel=1e-2)


def test_single_batches_rounding_and_updates_without_a_change_do_not_brake() -> None:
    brake = Brake(noise=MOST / 10)
    brake.last = 0.01
    brake.see(MOST / 6, 1.0)
    assert brake.kept(1.0, MOST) == 1.0
    for kl in [100 * MOST] + [MOST / 2] * RECENT + [100 * MOST]:
        brake.last = 1.0
        brake.see(kl, 1.0)
        assert brake.kept(1.0, MOST) == 1.0
    brake.last = 0.0
    brake.see(100 * MOST, 1.0)
    assert brake.kept(1.0, MOST) == 1.0


def test_movement_within_the_rounding_does_not_release_the_limit() -> None:
    brake = Brake(noise=MOST / 10, last=1.0)
    for _ in range(FEWEST):
        brake.see(100 * MOST, 1.0)
    for _ in range(RECENT):
        brake.last = 0.1 * brake.kept(1.0, MOST)
        brake.see(MOST / 6, 1.0)
    assert brake.kept(1.0, MOST) == pytest.approx(0.1, rel=1e-2)


@pytest.mark.parametrize("kl", [float("nan"), float("inf")])
@pytest.mark.parametrize("behind", [0.0, 1.0])
def test_a_batch_that_is_not_finite_says_nothing_about_the_rate(kl: float, behind: float) -> None:
    brake = Brake(last=1.0)
    brake.see(4 * MOST, 1.0)
    before = brake.state
    brake.see(kl, behind)
    assert brake.state == before


def test_the_limit_holds_in_the_learner_and_after_a_restart(make: Make, build_group: Build, tmp_path: Path) -> None:
    """The engine was certain of the stale samples, as if the policy had moved far since."""

    def stale(version: int, incarnation: int = 0, others: int = 0) -> Batch:
        """others: groups without variance, and not stale."""
        group = build_group(version, adapter=AdapterRef(version - 1, incarnation, "nowhere"))
        samples = tuple(replace(each, logprobs=(0.0,) * len(each.logprobs)) for each in group.samples)
        same = build_group(version, (1.0, 1.0), adapter=AdapterRef(version, incarnation, "nowhere"))
        return Batch(version, (replace(group, samples=samples), *[same] * others))

    settings = {"learner.max_kl": 1e-4, "learner.learning_rate": 1e-3, "learner.schedule": "constant"}
    learner, other, free = make(settings), make(settings), make(settings | {"learner.max_kl": 0.0})
    every, expected = make(settings | {"algorithm.entropy": 1e-9}), 0.0
    for each, others in ((learner, 0), (free, 0), (every, 2)):
        update(each, batch(build_group))
        rates = [update(each, stale(n, others=others)).metrics["learning_rate"] for n in range(1, FEWEST + 1)]
        assert rates[:-1] == [1e-3] * (FEWEST - 1)
        assert (rates[-1] < 0.9e-3) == (each is not free)
        expected = rates[-1] if each is learner else expected
    assert rates[-1] == pytest.approx(expected, rel=0.05)
    learner.save(tmp_path)
    other.restore(tmp_path, incarnation=1)
    version = FEWEST + 1
    ours, theirs = update(learner, stale(version)).metrics, update(other, stale(version, 1)).metrics
    assert ours["learning_rate"] == theirs["learning_rate"]
