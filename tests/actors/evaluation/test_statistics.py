from math import gamma, pi, sqrt
from statistics import mean

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.evaluation.statistics import (
    FEWEST,
    Difference,
    mean_difference,
    paired_difference,
    pass_at,
    share_interval,
    student_p,
    student_quantile,
)


@given(st.integers(1, 64), st.data())
def test_pass_at_k_is_the_closed_form(n: int, data: st.DataObject) -> None:
    """1 − ∏ (1 − k / i) over i = n − c + 1 … n, the numerically stable form of Chen et al."""
    c = data.draw(st.integers(0, n))
    found = pass_at([c], n)
    assert list(found) == [f"pass@{k}" for k in sorted({1, 8, 16, n}) if k <= n]
    for name, values in found.items():
        k = int(name.removeprefix("pass@"))
        product_form = 1.0 if n - c < k else 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
        assert values == pytest.approx([product_form], abs=1e-12)


DIFFICULTIES = {"alike": None, "mixed": 1.0, "all or nothing": 0.0}
"""Spreads of problems' difficulty: a + b of its Beta distribution, None for one difficulty, 0 for always or never."""


def chances(rng: np.random.Generator, mean: float, spread: float | None, shape: tuple[int, int]) -> np.ndarray:
    if spread is None:
        return np.full(shape, mean)
    return rng.beta(mean * spread, (1 - mean) * spread, shape) if spread else (rng.random(shape) < mean).astype(float)


@pytest.mark.parametrize("spread", DIFFICULTIES.values(), ids=DIFFICULTIES)
@pytest.mark.parametrize(("problems", "n"), [(6, 1), (16, 16)])
def test_intervals_on_few_hard_problems_cover_the_truth(problems: int, n: int, spread: float | None) -> None:
    rng = np.random.default_rng(0)
    before = chances(rng, 0.09, spread, (600, problems))
    solved = before.copy()
    solved[rng.random(before.shape) < 0.15] = 1.0  # some problems become easy
    single, same, changed = [], [], []
    for first, again, later in zip(*(rng.binomial(n, each) / n for each in (before, before, solved)), strict=True):
        low, high = share_interval(first.tolist())
        single.append(low <= 0.09 <= high)
        for other, truth, covered in ((again, 0.0, same), (later, 0.15 * 0.91, changed)):
            found = paired_difference(dict(enumerate(first.tolist())), dict(enumerate(other.tolist())))
            assert found is not None
            assert found.interval is not None
            covered.append(found.interval[0] <= truth <= found.interval[1])
    assert min(mean(single), mean(same), mean(changed)) >= 0.92


@given(st.lists(st.integers(-4, 4), min_size=FEWEST, max_size=12))
@example([4] * 7)  # whose upper end is rounded
def test_an_interval_excludes_zero_exactly_where_p_is_below_5_percent(changes: list[int]) -> None:
    found = paired_difference(dict.fromkeys(range(len(changes)), 0.0), dict(enumerate(c / 4 for c in changes)))
    assert found is not None
    assert found.interval is not None
    assert found.p is not None
    low, high = found.interval
    assert -1 <= low <= found.value <= high <= 1
    assert (low > 0 or high < 0) == (found.p < 0.05) == found.shown


def test_a_mean_difference_is_the_paired_t_test_of_student_1908() -> None:
    """Hours of sleep gained with two drugs, Biometrika 6, 20."""
    first = dict(enumerate((0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)))
    second = dict(enumerate((1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4, 99.0)))
    found = mean_difference(first, second)
    assert found
    assert found.value == pytest.approx(1.58)
    assert found.interval == pytest.approx((0.7001, 2.4599), abs=1e-4)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert found.shown


@pytest.mark.parametrize(("change", "shown"), [(1.0, True), (-0.5, True), (0.0, False)])
def test_a_change_of_all_rewards_alike_is_certain(change: float, shown: bool) -> None:
    same = dict.fromkeys(range(FEWEST), 1.0)
    assert mean_difference(same, dict.fromkeys(same, 1.0 + change)) == Difference(
        change, (change, change), float(not shown)
    )
    few = dict.fromkeys(range(FEWEST - 1), 1.0 + change)
    assert mean_difference(same, few) == Difference(change)
    assert mean_difference(same, {}) is None


def test_none_or_all_solved_still_leaves_doubt() -> None:
    with pytest.raises(ValueError, match="at least one"):
        share_interval([])
    low, high = share_interval([0.0] * 30)
    assert (low, high) == (0.0, pytest.approx(0.12, abs=0.02))
    assert share_interval([1.0] * 30) == (pytest.approx(1 - high), pytest.approx(1.0))


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 30, 127])
def test_student_is_the_integral_of_its_density(freedom: int) -> None:
    density = np.power(1 + np.linspace(0, 2.5, 100_001) ** 2 / freedom, -(freedom + 1) / 2)
    factor = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    assert student_p(2.5, freedom) == pytest.approx(1 - 2 * factor * np.trapezoid(density, dx=2.5e-5), abs=1e-6)
    assert student_p(student_quantile(0.95, freedom), freedom) == pytest.approx(0.05)
