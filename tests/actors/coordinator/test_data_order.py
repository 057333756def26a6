from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.producer import problem_at
from actors.messages import Problem

PROBLEMS = tuple(Problem(str(i), "", (), "") for i in range(13))


@given(st.integers(0, 1000), st.integers(0, 50))
def test_every_epoch_is_a_permutation(seed: int, epoch: int) -> None:
    places = range(epoch * len(PROBLEMS), (epoch + 1) * len(PROBLEMS))
    ids = [problem_at(PROBLEMS, seed, index).id for index in places]
    assert sorted(ids) == sorted(problem.id for problem in PROBLEMS)
    assert [problem_at(PROBLEMS, seed, index).id for index in reversed(places)] == ids[::-1]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(problem_at(PROBLEMS, seed, epoch * len(PROBLEMS) + i).id for i in range(len(PROBLEMS)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9
