"""Verified groups, one or many at a time, under virtual time."""

import pytest

from microbudget_rl.actors.attempt import Attempt, Attempts, evaluation_sampling, rollout_sampling
from microbudget_rl.actors.messages import Group, Request
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from tests.fakes import FakeEngine, FakeVerifier, make_problem
from tests.virtual_time import VirtualClock, run_virtually

CONFIG = changed(Config(), {"rollout.temperature": 0.7, "eval.temperature": 0.3, "eval.top_p": 0.9})
REQUESTS = [
    Request(index, make_problem(index), None, rollout_sampling(CONFIG, "rollout", index, samples=2))
    for index in range(5)
]


def test_an_attempt_has_a_verified_group_and_where_its_time_went():
    attempts, generated = Attempts(CONFIG, FakeEngine(3.0), FakeVerifier(2.0), VirtualClock()), list[Group]()
    attempt = run_virtually(attempts.make(REQUESTS[1], generated.append))
    assert (attempt.group.index, len(attempt.group.rewards)) == (1, 2)
    assert (attempt.generate_s, attempt.verify_s) == pytest.approx((3.0, 2.0), abs=0.1)
    assert [(group.index, group.rewards) for group in generated] == [(1, ())]


@pytest.mark.parametrize(("seconds", "complete", "places"), [(None, True, {0, 1, 2, 3, 4}), (4.5, False, {0, 1})])
def test_many_attempts_share_their_places_and_their_time(seconds: float | None, complete: bool, places: set[int]):
    """Two at once take three seconds."""
    attempts, ended = Attempts(CONFIG, FakeEngine(2.0), FakeVerifier(1.0), VirtualClock()), dict[int, Attempt]()
    assert run_virtually(attempts.make_all(REQUESTS, 2, ended.__setitem__, seconds)) is complete
    assert ended.keys() == places
    assert all(attempt.group.index == place for place, attempt in ended.items())


def test_training_samples_from_the_full_distribution_and_evaluation_as_its_settings_say():
    training, evaluation = rollout_sampling(CONFIG, "rollout", 3), evaluation_sampling(CONFIG, "rollout", 3)
    assert (training.samples, training.temperature, training.top_p) == (8, 0.7, 1.0)
    assert (evaluation.samples, evaluation.temperature, evaluation.top_p) == (1, 0.3, 0.9)
    assert training.seed == evaluation.seed != rollout_sampling(CONFIG, "rollout", 4).seed
