"""Actors that die under a run: it goes on without a person."""

import signal
from collections.abc import Callable

import pytest

from microbudget_rl.actors.runtime.supervision import DEATHS_IN_A_ROW
from tests.faults.conftest import COORDINATOR, ROLLOUT, Run
from tests.faults.injection import Trial
from tests.faults.moments import KILLS

Begin = Callable[..., Run]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = ("budget.updates=2000", "eval.problems=0", "learner.learning_rate=1e-6")
"""A policy that has learned all there is would end the run."""


def test_each_process_in_turn(begin: Begin):
    """As `python -m tests.faults kill` does, which checks the history, too."""
    trial = Trial(begin)
    for fault in KILLS.values():
        trial.suffer(fault, saving=False)
    trial.end()


def test_hanging_engine_is_replaced(begin: Begin):
    """A stopped process answers no heartbeat."""
    run = begin("hanging", *SETTINGS)
    run.wait_for_update(2)
    at = run.updates
    run.find(ROLLOUT).suspend()
    run.wait_for_update(at + 3)
    [event] = run.end(signal.SIGTERM).events("rollout-0 died")
    assert "did not answer for" in event


@pytest.mark.parametrize(("process", "name", "update"), [(ROLLOUT, "rollout-0", 2), (COORDINATOR, "coordinator", 0)])
def test_process_that_never_comes_back_ends_the_run_with_the_cause(process: str, name: str, update: int, begin: Begin):
    """update: the run is that far when it begins."""
    run = begin(f"hopeless-{name}", *SETTINGS)
    run.wait_for_update(update)
    run.kill_each_new(process, DEATHS_IN_A_ROW)
    ended = run.end()
    assert ended.code == 1, ended.output
    assert ended.summary["status"] == "failed"
    for text in (ended.summary["reason"], ended.output):
        assert f"{name} died {DEATHS_IN_A_ROW} times in a row" in text
