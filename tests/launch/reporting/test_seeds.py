from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.reporting.seeds import holm, over_seeds, unpooled_difference


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
    found = unpooled_difference([0.1, 0.2, 0.3], [1.0, 1.1, 1.3, 1.2], 1)
    assert found.interval
    assert found.value == pytest.approx(0.95)
    margin = 4.303 * (0.01 / 3 + 0.05 / 3 / 4) ** 0.5  # Student's t of two degrees of freedom
    assert found.interval[1] - found.value == pytest.approx(margin, rel=0.001)
    assert unpooled_difference([0.1], [1.0, 1.1], 1).interval is None
