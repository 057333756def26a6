"""Actors that die under a run: it goes on without a person."""

import signal
from collections.abc import Callable

import pytest

from tests.faults.conftest import LEARNER, REWARD, ROLLOUT, WORKER, Run

Begin = Callable[..., Run]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = ("budget.updates=2000", "eval.problems=0", "learner.learning_rate=1e-6")
"""A policy that has learned all there is would end the run."""


def test_each_actor_in_turn(begin: Begin) -> None:
    run = begin("in-turn", "checkpoint.every=5", *SETTINGS)
    run.wait_for_update(7)
    for victim, name in ((ROLLOUT, "rollout-0"), (REWARD, "reward-0"), (WORKER, ""), (LEARNER, "learner")):
        run.look()
        at = run.updates
        run.find(victim).kill()
        if name:
            run.wait_until(lambda n=name: len(run.events(f"{n} died")) == 1, f"event of {victim}")
        run.wait_for_update(max(at, run.updates) + 2)
    ended = run.end(signal.SIGTERM)
    assert ended.code == 143, ended.output
    for name in ("rollout-0", "reward-0", "learner"):
        assert len(ended.events(f"{name} died")) == 1
    assert [row["update"] for row in ended.rows] == list(range(1, len(ended.rows) + 1))


def test_hanging_engine_is_replaced(begin: Begin) -> None:
    """A stopped process answers no heartbeat."""
    run = begin("hanging", *SETTINGS)
    run.wait_for_update(2)
    at = run.updates
    run.find(ROLLOUT).suspend()
    run.wait_for_update(at + 3)
    [event] = run.end(signal.SIGTERM).events("rollout-0 died")
    assert "did not answer for" in event


def test_engine_that_never_comes_back_ends_the_run_with_the_cause(begin: Begin) -> None:
    run = begin("hopeless", *SETTINGS)
    run.wait_for_update(2)
    run.kill_each_new(ROLLOUT, 3)
    ended = run.end()
    assert ended.code == 1, ended.output
    assert ended.summary["status"] == "failed"
    for text in (ended.summary["reason"], ended.output):
        assert "rollout-0 died 3 times in a row" in text
