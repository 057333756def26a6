from itertools import accumulate
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.rules.order import DataCursor, Mixture, _begun, place, problem_at
from microbudget_rl.actors.messages import Problem

PROBLEMS = tuple(Problem(str(i), "", (), "") for i in range(13))
SOURCES = {
    name: [Problem(f"{name}{i}", "", (), "", source=name) for i in range(size)] for name, size in (("a", 5), ("b", 8))
}
WEIGHTS = {"a": 0.7, "b": 0.3}


@given(st.integers(0, 1000), st.integers(0, 50))
def test_every_epoch_is_a_permutation(seed: int, epoch: int):
    places = range(epoch * len(PROBLEMS), (epoch + 1) * len(PROBLEMS))
    ids = [problem_at(PROBLEMS, seed, index).id for index in places]
    assert sorted(ids) == sorted(problem.id for problem in PROBLEMS)
    assert [problem_at(PROBLEMS, seed, index).id for index in reversed(places)] == ids[::-1]
    assert ids != [problem_at(PROBLEMS, seed + 1, index).id for index in places]
    assert ids != [problem_at(PROBLEMS, seed, index + len(PROBLEMS)).id for index in places]


@given(st.integers(0, 1000), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_a_mixture_walks_each_sources_own_stream(seed: int, indices: list[int]):
    mixture = Mixture([*SOURCES["a"], *SOURCES["b"]], WEIGHTS, seed)
    for index in indices:
        source, number = place((0.7, 0.3), index)
        assert mixture.at(index) == problem_at(SOURCES["ab"[source]], seed, number)
        assert Mixture(PROBLEMS, {"": 1.0}, seed).at(index) == problem_at(PROBLEMS, seed, index)


@given(st.lists(st.tuples(st.integers(1, 6), st.randoms(use_true_random=False), st.booleans()), max_size=12))
def test_a_cursor_repeats_no_used_index_and_goes_on_from_what_is_stored(steps: list[tuple[int, Random, bool]]):
    cursor, used = DataCursor(), set[int]()
    under_way: list[int] = []
    for admitted, random, resumed in steps:
        under_way += [cursor.admit() for _ in range(admitted)]
        done = random.sample(under_way, random.randint(0, len(under_way)))
        assert used.isdisjoint(done)
        cursor.use(done)
        used |= set(done)
        assert used == {*range(cursor.next_unused), *cursor.used}
        under_way = [index for index in under_way if index not in done]
        if resumed:
            cursor, under_way = DataCursor(cursor.next_unused, cursor.used), []
    assert [cursor.admit() for _ in range(3)] == [i for i in range(100) if i not in used and i not in under_way][:3]


SHARES = st.lists(st.one_of(st.integers(1, 9).map(float), st.floats(1e-6, 1e6)), min_size=1, max_size=6).map(tuple)


@given(SHARES, st.integers(1, 400))
@example((40.0, *[1.0] * 8), 120)  # without a least lag, the first source would be far ahead
def test_weights_hold_over_any_stretch(weights: tuple[float, ...], most: int):
    placed = [place(weights, index) for index in range(most)]
    bound = 2 - 1 / (len(weights) - 1) if len(weights) > 1 else 0
    for source, weight in enumerate(weights):
        counts = [0, *accumulate(int(one == source) for one, _ in placed)]
        lags = [count - t * weight / sum(weights) for t, count in enumerate(counts)]
        assert max(lags) - min(lags) <= bound + 1e-9  # the largest deviation of all stretches
        assert [number for one, number in placed if one == source] == list(range(counts[-1]))


@given(SHARES, st.lists(st.integers(0, 10**3), min_size=1, max_size=20))
def test_a_place_does_not_depend_on_what_was_asked_before(weights: tuple[float, ...], indices: list[int]):
    _begun.cache_clear()
    jumped = [place(weights, index) for index in indices]
    _begun.cache_clear()
    order = [place(weights, index) for index in range(max(indices) + 1)]
    assert jumped == [order[index] for index in indices]


def test_an_order_repeats_after_the_sum_of_whole_weights_and_far_indices_are_cheap():
    assert [place((3.0, 1.0), index)[0] for index in range(8)] == [0, 0, 1, 0] * 2
    assert place((0.7, 0.3), 10**12) == (0, 7 * 10**11)
    assert len(_begun((0.7, 0.3))[2]) <= 10
