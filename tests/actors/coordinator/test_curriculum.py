import json

from actors.coordinator.curriculum import Curriculum
from actors.messages import Status
from tests.fakes import make_group, make_reward

RIGHT, WRONG, MIXED = (1.0, 1.0), (0.0, 0.0), (1.0, 0.0)


def test_problem_with_unanimous_answers_rests_and_comes_back() -> None:
    for scores in (RIGHT, WRONG):
        curriculum = Curriculum(rest_epochs=2)
        group = make_group(0, scores=scores)
        curriculum.see(group, epoch=3)
        assert [epoch for epoch in range(9) if curriculum.rests(group.problem, epoch)] == [4, 5]


def test_problem_with_something_to_learn_from_does_not_rest() -> None:
    curriculum = Curriculum(rest_epochs=2)
    group = make_group(0, scores=MIXED)
    curriculum.see(group, epoch=0)
    assert not curriculum.rests(group.problem, 1)


def test_nothing_rests_by_default() -> None:
    curriculum = Curriculum(rest_epochs=0)
    group = make_group(0, scores=RIGHT)
    curriculum.see(group, epoch=0)
    assert not any(curriculum.rests(group.problem, epoch) for epoch in range(3))


def test_answers_that_could_not_be_verified_say_nothing() -> None:
    curriculum = Curriculum(rest_epochs=2)
    group = make_group(0)
    masked = make_reward(0.0, Status.TIMEOUT)
    curriculum.see(group.__class__(0, group.problem, group.adapter, group.samples, (masked, masked)), epoch=0)
    assert not curriculum.rests(group.problem, 1)
    assert curriculum.state == {"p0": [0, 0, 0]}


def test_solve_rates_survive_a_resume() -> None:
    first = Curriculum(rest_epochs=1)
    first.see(make_group(0, scores=RIGHT), epoch=0)
    first.see(make_group(1, scores=MIXED), epoch=0)
    resumed = Curriculum(1, json.loads(json.dumps(first.state)))
    assert resumed.state == {"p0": [2, 2, 2], "p1": [2, 1, 0]}
    assert resumed.rests(make_group(0).problem, 1)
