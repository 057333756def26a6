import random
from collections import Counter
from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.rules.mixture import place
from actors.coordinator.rules.order import DataCursor, Mixture, problem_at
from actors.messages import Problem

PROBLEMS = tuple(Problem(str(i), "", (), "") for i in range(13))
SOURCES = {
    name: [Problem(f"{name}{i}", "", (), "", source=name) for i in range(size)] for name, size in (("a", 5), ("b", 8))
}
WEIGHTS = {"a": 0.7, "b": 0.3}


@given(st.integers(0, 1000), st.integers(0, 50))
def test_every_epoch_is_a_permutation(seed: int, epoch: int) -> None:
    places = range(epoch * len(PROBLEMS), (epoch + 1) * len(PROBLEMS))
    ids = [problem_at(PROBLEMS, seed, index).id for index in places]
    assert sorted(ids) == sorted(problem.id for problem in PROBLEMS)
    assert [problem_at(PROBLEMS, seed, index).id for index in reversed(places)] == ids[::-1]
    assert ids != [problem_at(PROBLEMS, seed + 1, index).id for index in places]
    assert ids != [problem_at(PROBLEMS, seed, index + len(PROBLEMS)).id for index in places]


@given(st.integers(0, 1000), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_a_mixture_walks_each_sources_own_stream(seed: int, indices: list[int]) -> None:
    mixture = Mixture([*SOURCES["a"], *SOURCES["b"]], WEIGHTS, seed)
    for index in indices:
        source, number = place((0.7, 0.3), index)
        assert mixture.at(index) == problem_at(SOURCES["ab"[source]], seed, number)
        assert Mixture(PROBLEMS, {"": 1.0}, seed).at(index) == problem_at(PROBLEMS, seed, index)


@given(st.integers(0, 1000))
def test_a_mixture_draws_by_chance_within_each_source_and_goes_on_from_what_is_stored(seed: int) -> None:
    whole, cut = (Mixture([*SOURCES["a"], *SOURCES["b"]], WEIGHTS, seed) for _ in range(2))
    for index in range(40):
        drawn = whole.draw(index, lambda name: 0.3 if name in ("a1", "b2") else 1.0)
        cut = Mixture([*SOURCES["a"], *SOURCES["b"]], WEIGHTS, seed, cut.reached, cut.drawn.items())
        assert cut.draw(index, lambda name: 0.3 if name in ("a1", "b2") else 1.0) == drawn
        assert drawn.source == "ab"[place((0.7, 0.3), index)[0]]
        for each in (whole, cut):
            each.close(range(index - 3).__contains__)


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 3), st.integers(0, 10**6))
def test_draws_bound_repeats_and_go_on_from_what_is_stored(size: int, per_batch: int, ahead: int, seed: int) -> None:
    random_ = random.Random(seed)
    problems = tuple(Problem(str(number), "", (), "") for number in range(size))
    known = {problem.id: random_.choice((0.1, 0.3, 1.0)) for problem in problems}

    def make(reached: Sequence[int] = (), drawn: Iterable[tuple[int, int]] = ()) -> Mixture:
        return Mixture(problems, {"": 1.0}, seed, reached, drawn)

    walk, cursor, places = make(), DataCursor(), list[int]()
    for _ in range(12):
        while len(walk.drawn) < per_batch * (ahead + 1):
            under_way = Counter(problem_at(problems, seed, place).id for place in walk.drawn.values())
            index = cursor.admit()
            problem = walk.draw(index, known.__getitem__)
            assert walk.draw(index, known.__getitem__) == problem
            assert under_way[problem.id] <= under_way.total() // size
            places.append(walk.drawn[index])
        done = random_.sample(sorted(walk.drawn), per_batch)
        cursor.use(done)
        walk.close(cursor.done)
        assert not walk.drawn.keys() & set(done)
        if random_.random() < 0.5:
            walk = make(walk.reached, walk.drawn.items())
    assert places == sorted(set(places))  # each place once, so that no problem comes twice in an epoch


@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 10**6))
def test_no_batch_taken_in_order_has_a_problem_twice_even_if_all_are_under_way(
    size: int, ahead: int, seed: int
) -> None:
    mixture = Mixture(PROBLEMS[:size], {"": 1.0}, seed)
    drawn = [mixture.draw(index, lambda name: 0.1 if int(name) % 2 else 1.0).id for index in range(size * (ahead + 1))]
    for version in range(5):
        assert len({*drawn[version * size : (version + 1) * size]}) == size
        mixture.close(range(size * (version + 1)).__contains__)
        drawn += [mixture.draw(index, lambda _: 0.5).id for index in range(len(drawn), len(drawn) + size)]


def test_problems_are_drawn_by_their_chance() -> None:
    problems = tuple(Problem(str(number), "", (), "") for number in range(100))
    walk = Mixture(problems, {"": 1.0}, 0)
    taken = Counter(int(walk.draw(index, lambda name: 0.1 if int(name) < 50 else 1.0).id) < 50 for index in range(60))
    drawn = []
    for index in range(60, 1000):
        walk.close(lambda _: True)
        drawn.append(int(walk.draw(index, lambda name: 0.1 if int(name) < 50 else 1.0).id) < 50)
    assert taken[False] == 50  # while a group of a problem is under way, the problem is not drawn again
    assert 0.05 < sum(drawn) / len(drawn) < 0.14
