from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.rules.order import problem_at
from actors.messages import Problem

PROBLEMS = tuple(Problem(str(i), "", (), "") for i in range(13))


@given(st.integers(0, 1000), st.integers(0, 50))
def test_every_epoch_is_a_permutation(seed: int, epoch: int) -> None:
    places = range(epoch * len(PROBLEMS), (epoch + 1) * len(PROBLEMS))
    ids = [problem_at(PROBLEMS, seed, index).id for index in places]
    assert sorted(ids) == sorted(problem.id for problem in PROBLEMS)
    assert [problem_at(PROBLEMS, seed, index).id for index in reversed(places)] == ids[::-1]
    assert ids != [problem_at(PROBLEMS, seed + 1, index).id for index in places]
    assert ids != [problem_at(PROBLEMS, seed, index + len(PROBLEMS)).id for index in places]
