"""Actors that die under a run: it goes on without a person."""

import signal
from collections.abc import Callable

import pytest

from tests.faults.conftest import LEARNER, REWARD, ROLLOUT, WORKER, Run, named

Begin = Callable[..., Run]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = ("budget.updates=2000", "eval.problems=0", "learner.learning_rate=1e-6")
"""A policy that has learned all there is would end the run."""


def test_each_actor_in_turn(begin: Begin) -> None:
    run = begin("in-turn", "checkpoint.every=5", *SETTINGS)
    run.wait_for_update(7)
    for victim, event in ((ROLLOUT, 1), (REWARD, 1), (WORKER, 0), (LEARNER, 1)):
        run.look()
        at = run.updates
        run.kill(victim)
        if victim != WORKER:
            name = {ROLLOUT: "rollout-0", REWARD: "reward-0", LEARNER: "learner"}[victim]
            run.wait_until(lambda n=name, e=event: len(run.events(f"{n} died")) == e, f"event of {victim}")
        back = run.updates
        run.wait_for_update(max(at, back) + 2)
    run.process.send_signal(signal.SIGTERM)
    ended = run.end()
    assert ended.code == 143, ended.output
    assert len(ended.events("rollout-0 died")) == 1
    assert len(ended.events("reward-0 died")) == len(ended.events("learner died")) == 1
    assert [row["update"] for row in ended.rows] == list(range(1, len(ended.rows) + 1))


def test_hanging_engine_is_replaced(begin: Begin) -> None:
    """A stopped process answers no heartbeat."""
    run = begin("hanging", *SETTINGS)
    run.wait_for_update(2)
    at = run.updates
    run.kill(ROLLOUT, number=signal.SIGSTOP)
    run.wait_for_update(at + 3)
    [event] = run.end(signal.SIGTERM).events("rollout-0 died")
    assert "did not answer for" in event


def test_engine_that_never_comes_back_ends_the_run_with_the_cause(begin: Begin) -> None:
    run = begin("hopeless", *SETTINGS)
    run.wait_for_update(2)
    killed: set[int] = set()

    def kill_the_next() -> bool:
        for process in run.look():
            if process.pid not in killed and named(process, ROLLOUT):
                killed.add(process.pid)
                process.kill()
        return run.process.poll() is not None or len(killed) >= 3

    run.wait_until(kill_the_next, "third death")
    ended = run.end()
    assert ended.code == 1, ended.output
    assert ended.summary["status"] == "failed"
    assert "rollout-0 died 3 times in a row" in ended.summary["reason"]
    assert "rollout-0 died 3 times in a row" in ended.output
