from math import sqrt
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.reporting.comparison import holm, over_seeds, seeds_to_decide, welch_difference


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


def test_interval_over_seeds_is_students() -> None:
    found = over_seeds([0.5, 0.6, 0.7])
    half = 4.30265 * 0.1 / sqrt(3)
    assert found.value == pytest.approx(0.6)
    assert found.interval == pytest.approx((0.6 - half, 0.6 + half))


def test_samples_that_vary_unequally_have_their_own_variances() -> None:
    found = welch_difference([0.1, 0.2, 0.3], [1.0, 1.1, 1.3, 1.2], 1)
    assert found.interval
    assert found.value == pytest.approx(0.95)
    margin = 4.303 * (0.01 / 3 + 0.05 / 3 / 4) ** 0.5  # Student's t of two degrees of freedom
    assert found.interval[1] - found.value == pytest.approx(margin, rel=0.001)
    assert welch_difference([0.1], [1.0, 1.1], 1).interval is None
    base = welch_difference([0.1], [1.0, 1.1, 1.2], noise=0.01).interval
    assert base
    assert base[1] - 1.0 == pytest.approx(4.303 * (0.01 / 3 + 0.01) ** 0.5, rel=0.001)


@pytest.mark.parametrize(("low", "high"), [((3, 1.0), (3, 3.0)), ((5, 1.0), (2, 4.0)), ((2, 1.0), (5, 4.0))])
def test_equal_settings_of_unequal_spread_rarely_differ(low: tuple[int, float], high: tuple[int, float]) -> None:
    """Number of seeds and spread of each. One variance for both would find a difference in 8 and 27 % of the cases."""
    rng = np.random.default_rng(0)
    draws = zip(*(rng.normal(0.0, spread, (2000, seeds)).tolist() for seeds, spread in (low, high)), strict=True)
    assert fmean(welch_difference(*each).shown for each in draws) <= 0.055


@pytest.mark.parametrize(("family", "sides", "needed"), [(1, 1, 4), (1, 2, 4), (5, 2, 6)])
def test_the_number_of_seeds_to_decide_is_the_least_that_does(family: int, sides: int, needed: int) -> None:
    """Ten points are more than 2.447 · 5 · √(2 / 4), of 6 degrees of freedom, and less than 2.776 · 5 · √(2 / 3)."""
    assert f"{needed}\xa0seeds" in seeds_to_decide(0.1, family, sides)
    assert "more than 20" in seeds_to_decide(0.001, family, sides)
