"""Held-out evaluation under virtual time."""

import asyncio

import pytest

from actors.evaluation.evaluator import Evaluator
from actors.messages import Group
from actors.storage.documents import Heldout
from conf.schema import Config
from tests.fakes import FakeEngine, FakeVerifier, make_problem
from tests.virtual_time import VirtualClock, run_virtually

PROBLEMS = tuple(make_problem(number) for number in range(16))


def evaluate(seconds: float, round_s: float = 0.0, n: int = 3) -> tuple[Heldout | None, tuple[Group, ...], float]:
    """The evaluation of 16 problems of 10 s each, four at a time, within `seconds`, and how long it took."""
    engine = FakeEngine(seconds=10.0)
    engine.most_at_once = 4

    async def scenario() -> tuple[Heldout | None, tuple[Group, ...], float]:
        clock = VirtualClock()
        evaluator = Evaluator(Config(), engine, FakeVerifier(0.0), clock)
        result = await evaluator.evaluate(PROBLEMS, None, n, seconds, round_s)
        return *(result or (None, ())), clock.now()

    return run_virtually(scenario())


def test_round_that_does_not_finish_is_dropped_whole() -> None:
    for seconds, n, spent in ((200.0, 3, 120.0), (100.0, 2, 100.0)):
        evaluation, _, taken = evaluate(seconds)
        assert evaluation is not None
        assert (evaluation.problems, evaluation.n, round(taken)) == (16, n, spent)
        assert sorted(evaluation.pass_at) == [1, n]


def test_time_for_less_than_a_round_evaluates_the_first_problems() -> None:
    """Four parts of 10 s each, of which the last would end too late."""
    evaluation, groups, spent = evaluate(seconds=35.0, round_s=40.0)
    assert evaluation is not None
    assert (evaluation.problems, evaluation.n, spent) == (12, 1, 35.0)
    assert [group.problem for group in groups] == list(PROBLEMS[:12])


def test_short_time_may_suffice_for_every_problem_or_for_none() -> None:
    evaluation, _, _ = evaluate(seconds=100.0, round_s=40.0, n=1)
    assert evaluation is not None
    assert (evaluation.problems, evaluation.n) == (16, 1)
    assert evaluate(seconds=5.0, round_s=40.0) == (None, (), 5.0)


def test_failure_of_one_sample_cancels_the_others() -> None:
    engine = FakeEngine(seconds=10.0)
    engine.most_at_once = 4

    class Failing(FakeVerifier):
        async def score(self, group: Group) -> Group:
            raise OSError("gone")

    async def scenario() -> int:
        with pytest.raises(ExceptionGroup):
            await Evaluator(Config(), engine, Failing(), VirtualClock()).evaluate(PROBLEMS, None, 1, 100.0)
        await asyncio.sleep(60.0)
        return engine.tokens

    assert run_virtually(scenario()) <= 4
