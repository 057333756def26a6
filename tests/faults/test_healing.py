"""Actors that crash in a run: it goes on without a person."""

import signal
from collections.abc import Callable

import pytest

from tests.faults.conftest import ENGINE, LEARNER, REWARD, ROLLOUT, WORKER, Run

Begin = Callable[..., Run]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = ("budget.updates=2000", "eval.problems=0", "learner.learning_rate=1e-6")
"""With a small learning rate, since a policy that has learned everything would end the run."""


def test_each_actor_in_turn(begin: Begin) -> None:
    run = begin("in-turn", "checkpoint.every=5", *SETTINGS)
    run.wait_for_update(7)
    victims = ((ENGINE, "rollout-0", 1), (ROLLOUT, "rollout-0", 2), (REWARD, "reward-0", 1), (WORKER, "", 0))
    for victim, name, deaths in (*victims, (LEARNER, "learner", 1)):
        run.look()
        at = run.updates
        run.kill(victim)
        if name:
            run.wait_until(lambda n=name, d=deaths: len(run.events(f"{n} died")) == d, f"event of {victim}")
        run.wait_for_update(max(at, run.updates) + 2)
    ended = run.end(signal.SIGTERM)
    assert ended.code == 143, ended.output
    for name, deaths in (("rollout-0", 2), ("reward-0", 1), ("learner", 1)):
        assert len(ended.events(f"{name} died")) == deaths
    assert [row["update"] for row in ended.rows] == list(range(1, len(ended.rows) + 1))


def test_hanging_engine_is_replaced(begin: Begin) -> None:
    """A stopped process answers no heartbeat."""
    run = begin("hanging", *SETTINGS)
    run.wait_for_update(2)
    at = run.updates
    run.kill(ENGINE, number=signal.SIGSTOP)
    run.wait_for_update(at + 3)
    [event] = run.end(signal.SIGTERM).events("rollout-0 died")
    assert "did not answer for" in event


def test_engine_that_never_comes_back_ends_the_run_with_the_cause(begin: Begin) -> None:
    run = begin("hopeless", *SETTINGS)
    run.wait_for_update(2)
    run.kill_each_new(ENGINE, 3)
    ended = run.end()
    assert ended.code == 1, ended.output
    assert ended.summary["status"] == "failed"
    for text in (ended.summary["reason"], ended.output):
        assert "rollout-0 died 3 times in a row" in text
