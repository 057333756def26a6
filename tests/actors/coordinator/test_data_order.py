from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.data_order import ProblemOrder
from actors.messages import Problem

PROBLEMS = tuple(Problem(str(i), "", (), "") for i in range(13))


@given(st.integers(0, 1000), st.integers(0, 50))
def test_every_epoch_is_a_permutation(seed: int, epoch: int) -> None:
    order = ProblemOrder(PROBLEMS, seed)
    start = epoch * len(PROBLEMS)
    ids = [order.problem(index).id for index in range(start, start + len(PROBLEMS))]
    assert sorted(ids) == sorted(problem.id for problem in PROBLEMS)
    again = ProblemOrder(PROBLEMS, seed)
    assert [again.problem(index).id for index in reversed(range(start, start + len(PROBLEMS)))] == ids[::-1]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def first(seed: int, epoch: int) -> tuple[str, ...]:
        order = ProblemOrder(PROBLEMS, seed)
        return tuple(order.problem(epoch * len(PROBLEMS) + i).id for i in range(len(PROBLEMS)))

    assert len({first(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9
