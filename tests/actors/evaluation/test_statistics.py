from itertools import combinations, product
from math import comb, gamma, pi, sqrt
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.evaluation.statistics import (
    FEWEST,
    bootstrap_interval,
    holm,
    majority,
    pass_at_k,
    pass_values,
    share_interval,
    sign_flip_p,
    student_p,
    student_quantile,
)


@given(st.data(), st.integers(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(data: st.DataObject, n: int) -> None:
    k = data.draw(st.integers(1, n))
    correct = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=4))
    shares = [mean(any(i < c for i in subset) for subset in combinations(range(n), k)) for c in correct]
    assert pass_at_k(correct, n, k) == pytest.approx(mean(shares))


@given(st.integers(1, 64), st.data())
def test_pass_at_k_of_each_problem_is_the_closed_form(n: int, data: st.DataObject) -> None:
    """1 − ∏ (1 − k / i) over i = n − c + 1 … n, the numerically stable form of Chen et al."""
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    product_form = 1.0 if n - c < k else 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
    assert pass_values([c], n, k) == pytest.approx([product_form], abs=1e-12)
    assert pass_values([c], n, n) == [float(c > 0)]
    assert 1 - comb(n - c, k) / comb(n, k) == pass_values([c], n, k)[0]


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


@pytest.mark.parametrize(("problems", "n", "a", "b"), [(30, 16, 1.0, 1.0), (60, 2, 0.5, 1.5)])
def test_95_percent_intervals_cover_the_truth_95_times_in_a_hundred(problems: int, n: int, a: float, b: float) -> None:
    """Problems of Beta(a, b) difficulty, whose mean is a / (a + b)."""
    rng = np.random.default_rng(0)
    covered = []
    for correct in rng.binomial(n, rng.beta(a, b, size=(1000, problems))):
        low, high = bootstrap_interval(correct / n, resamples=500)
        covered.append(low <= a / (a + b) <= high)
    assert 0.93 <= mean(covered) <= 0.97


def test_none_or_all_solved_still_leaves_doubt() -> None:
    low, high = share_interval([0.0] * 30)
    assert (low, 1 - high) == (0.0, pytest.approx(0.025 ** (1 / 30)))
    assert share_interval([1.0] * 30) == (pytest.approx(1 - high), 1.0)
    assert share_interval([0.0, 1.0] * 15) == bootstrap_interval([0.0, 1.0] * 15)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_sign_flip_p_is_the_share_of_all_sign_choices(differences: list[int]) -> None:
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    expected = mean(abs(other) >= abs(sum(differences)) for other in sums)
    assert sign_flip_p(differences) == pytest.approx(expected)


@pytest.mark.parametrize(("problems", "n"), [(30, 16), (60, 8)])
def test_paired_test_rejects_equal_policies_5_times_in_a_hundred(problems: int, n: int) -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(0.5, 1.5, size=(1000, problems))
    differences = rng.binomial(n, chances) - rng.binomial(n, chances)
    assert 0.03 <= mean(sign_flip_p(row) <= 0.05 for row in differences.tolist()) <= 0.07


def test_fewer_problems_than_a_verdict_needs_could_not_show_anything() -> None:
    assert sign_flip_p([1] * FEWEST) <= 0.05 < sign_flip_p([1] * (FEWEST - 1))


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 30, 127])
def test_student_is_the_integral_of_its_density(freedom: int) -> None:
    density = np.power(1 + np.linspace(0, 2.5, 100_001) ** 2 / freedom, -(freedom + 1) / 2)
    factor = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    assert student_p(2.5, freedom) == pytest.approx(1 - 2 * factor * np.trapezoid(density, dx=2.5e-5), abs=1e-6)
    assert student_p(student_quantile(0.95, freedom), freedom) == pytest.approx(0.05)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]) -> None:
    """At any level: the smallest must be below level / m, the next below level / (m - 1), until one is not."""
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_paired_test_sees_a_real_difference() -> None:
    assert sign_flip_p([1] * 10) == pytest.approx(2 / 2**10)
    assert sign_flip_p([0] * 10) == 1.0


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(0, True), (0, True), (1, False)], 1.0),
        ([(0, True), (1, False), (1, False)], 0.0),
        ([(0, True), (1, False), (None, False), (None, False), (None, False)], 0.5),
        ([(None, False)], 0.0),
    ],
)
def test_majority_of_votes(answers: list[tuple[int | None, bool]], expected: float) -> None:
    assert majority(answers) == expected
