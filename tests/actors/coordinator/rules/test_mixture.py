from itertools import accumulate

from hypothesis import example, given
from hypothesis import strategies as st

from actors.coordinator.rules.mixture import _begun, place

WEIGHTS = st.lists(st.one_of(st.integers(1, 9).map(float), st.floats(1e-6, 1e6)), min_size=1, max_size=6).map(tuple)


@given(WEIGHTS, st.integers(1, 400))
@example((40.0, *[1.0] * 8), 120)  # without a least lag, the first source would be far ahead
def test_weights_hold_over_any_stretch(weights: tuple[float, ...], most: int) -> None:
    placed = [place(weights, index) for index in range(most)]
    bound = 2 - 1 / (len(weights) - 1) if len(weights) > 1 else 0
    for source, weight in enumerate(weights):
        counts = [0, *accumulate(int(one == source) for one, _ in placed)]
        lags = [count - t * weight / sum(weights) for t, count in enumerate(counts)]
        assert max(lags) - min(lags) <= bound + 1e-9  # the largest deviation of all stretches
        assert [number for one, number in placed if one == source] == list(range(counts[-1]))


@given(WEIGHTS, st.lists(st.integers(0, 10**3), min_size=1, max_size=20))
def test_a_place_does_not_depend_on_what_was_asked_before(weights: tuple[float, ...], indices: list[int]) -> None:
    _begun.cache_clear()
    jumped = [place(weights, index) for index in indices]
    _begun.cache_clear()
    order = [place(weights, index) for index in range(max(indices) + 1)]
    assert jumped == [order[index] for index in indices]


def test_an_order_repeats_after_the_sum_of_whole_weights_and_far_indices_are_cheap() -> None:
    assert [place((3.0, 1.0), index)[0] for index in range(8)] == [0, 0, 1, 0] * 2
    assert place((0.7, 0.3), 10**12) == (0, 7 * 10**11)
    assert len(_begun((0.7, 0.3))[2]) <= 10
