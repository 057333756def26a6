from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.estimate import bootstrap_interval, pass_at_k


@given(st.data(), st.integers(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(data: st.DataObject, n: int) -> None:
    k = data.draw(st.integers(1, n))
    correct = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=4))
    shares = [mean(any(i < c for i in subset) for subset in combinations(range(n), k)) for c in correct]
    assert pass_at_k(correct, n, k) == pytest.approx(mean(shares))


@given(st.lists(st.integers(0, 16), min_size=1))
def test_pass_at_1_is_the_mean_accuracy(correct: list[int]) -> None:
    assert pass_at_k(correct, n=16, k=1) == pytest.approx(mean(c / 16 for c in correct))


@pytest.mark.parametrize(("correct", "n", "k"), [([1], 4, 5), ([1], 4, 0), ([5], 4, 1), ([-1], 4, 1), ([], 4, 1)])
def test_pass_at_k_refuses_impossible_counts(correct: list[int], n: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(correct, n, k)


def test_interval_covers_the_mean_as_the_normal_approximation_does() -> None:
    values = [0.0] * 60 + [1.0] * 40
    low, high = bootstrap_interval(values)
    half_width = 1.96 * (0.4 * 0.6 / 100) ** 0.5
    assert low == pytest.approx(0.4 - half_width, abs=0.02)
    assert high == pytest.approx(0.4 + half_width, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 5))
def test_interval_is_ordered_within_the_values_and_repeatable(values: list[float], seed: int) -> None:
    low, high = bootstrap_interval(values, resamples=200, seed=seed)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert (low, high) == bootstrap_interval(values, resamples=200, seed=seed)


def test_wider_confidence_gives_a_wider_interval() -> None:
    values = [i / 10 for i in range(11)]
    narrow, wide = bootstrap_interval(values, 0.5), bootstrap_interval(values, 0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_no_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([])
