import random

from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.producer import DataCursor, problem_at
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


@given(st.lists(st.integers(0, 15), unique=True), st.integers(0, 1000))
def test_cursor_repeats_and_skips_nothing_over_a_resume(used: list[int], seed: int) -> None:
    """Groups are admitted and used in any order."""
    rng = random.Random(seed)
    before = DataCursor()
    assert [before.admit() for _ in range(16)] == list(range(16))
    before.use(used)
    cursor = DataCursor(before.next_unused, before.used)
    admitted: list[int] = []
    waiting: list[int] = []
    for _ in range(30):
        if rng.random() < 0.5:
            waiting.append(cursor.admit())
            admitted.append(waiting[-1])
        elif waiting:
            cursor.use([waiting.pop(rng.randrange(len(waiting)))])
    assert admitted == [index for index in range(100) if index not in used][: len(admitted)]
