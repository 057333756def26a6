import pytest

from launch.benches.overlap import Side, between, idle


def test_seconds_are_those_between_two_updates() -> None:
    first = {
        "budget/spent_s": 50.0,
        "ledger/rollouts/generate": 20.0,
        "ledger/learner/update": 10.0,
        "ledger/learner/canary": 1.0,
    }
    last = {
        "budget/spent_s": 110.0,
        "ledger/rollouts/generate": 50.0,
        "ledger/learner/update": 40.0,
        "ledger/learner/canary": 3.0,
        "ledger/learner/sync": 4.0,
    }
    side = between(first, last, updates=10)
    assert side == Side(update=6.0, generate=3.0, learn=3.6)
    assert idle(side.generate, side) == 0.5
    assert idle(side.learn, side) == pytest.approx(0.4)
