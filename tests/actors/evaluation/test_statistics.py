from math import comb, gamma, pi, sqrt
from statistics import fmean, mean

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microbudget_rl.actors.evaluation.statistics import (
    FEWEST,
    Difference,
    known_rewards,
    paired_difference,
    pass_at,
    reward_difference,
    share_interval,
    student_p,
    student_quantile,
)
from microbudget_rl.actors.storage.documents import SampleRow


@given(st.integers(1, 64), st.data())
def test_pass_at_k_is_the_closed_form(n: int, data: st.DataObject):
    """1 − ∏ (1 − k / i) over i = n − c + 1 … n, the numerically stable form of Chen et al."""
    c = data.draw(st.integers(0, n))
    found = pass_at([c], n)
    assert list(found) == [k for k in sorted({1, 8, 16, n}) if k <= n]
    for k, values in found.items():
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
def test_intervals_on_few_hard_problems_cover_the_truth(problems: int, n: int, spread: float | None):
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


@pytest.mark.parametrize("problems", [6, 8, 16, 30])
def test_intervals_of_problems_that_are_all_or_nothing_cover_every_mean(problems: int):
    intervals = [share_interval([1.0] * solved + [0.0] * (problems - solved)) for solved in range(problems + 1)]
    for truth in np.linspace(0.001, 0.999, 999):
        covering = [solved for solved, (low, high) in enumerate(intervals) if low <= truth <= high]
        chance = sum(comb(problems, k) * truth**k * (1 - truth) ** (problems - k) for k in covering)
        assert chance >= 0.95


@given(st.lists(st.integers(-4, 4), min_size=FEWEST, max_size=12))
@example([4] * 7)  # whose upper end is rounded
def test_an_interval_excludes_zero_exactly_where_p_is_below_5_percent(changes: list[int]):
    found = paired_difference(dict.fromkeys(range(len(changes)), 0.0), dict(enumerate(c / 4 for c in changes)))
    assert found is not None
    assert found.interval is not None
    assert found.p is not None
    low, high = found.interval
    assert -1 <= low <= found.value <= high <= 1
    assert (low > 0 or high < 0) == (found.p < 0.05) == found.shown


@given(st.lists(st.integers(-4, 4), min_size=FEWEST, max_size=12), st.sampled_from([0.5, 3.0, 1e5]), st.integers(-9, 9))
def test_a_reward_difference_is_that_of_fractions_in_another_unit(changes: list[int], unit: float, low: int):
    before = {-2: 0.0, -1: 1.0} | dict.fromkeys(range(len(changes)), 0.5)  # the whole range
    after = {-2: 0.0, -1: 1.0} | {number: 0.5 + change / 8 for number, change in enumerate(changes)}
    known = paired_difference(before, after)
    found = reward_difference(*({key: low + unit * value for key, value in of.items()} for of in (before, after)))
    assert known
    assert found
    assert known.interval
    assert found.interval == pytest.approx(tuple(unit * end for end in known.interval), abs=1e-6 * unit)
    assert (found.value, found.p) == (pytest.approx(unit * known.value, abs=1e-6 * unit), pytest.approx(known.p))


def test_few_risen_rewards_show_nothing_and_none_has_no_difference():
    before = dict.fromkeys(range(100), 0.0)
    found = reward_difference(before, before | dict.fromkeys(range(4), 1.0))
    assert found
    assert not found.shown
    assert reward_difference(before, before) == Difference(0.0, (0.0, 0.0), 1.0)
    assert reward_difference(before, {}) is None
    twice, thrice = (fmean([0.1] * samples) for samples in (2, 3))
    assert twice != thrice
    assert not reward_difference(dict.fromkeys(range(64), twice), dict.fromkeys(range(64), thrice)).shown  # type: ignore[union-attr]


def test_a_reward_is_known_if_nothing_failed_and_no_part_is_lacking():
    row = dict.fromkeys(("prompt", "gold", "response"), "") | {"problem": "p", "tokens": 1, "finish_reason": "stop"}
    row |= {"reward": 3.0}
    rows = [row | {"status": "wrong"}, row | {"status": "correct", "reward": 1.0}, row | {"status": "crash"}]
    rows += [row | {"status": "wrong", **more} for more in ({"partial": True}, {"failure": "late"}, {"reward": None})]
    assert known_rewards(map(SampleRow.model_validate, rows)) == {"p": 2.0}


def test_none_or_all_solved_still_leaves_doubt():
    with pytest.raises(ValueError, match="at least one"):
        share_interval([])
    low, high = share_interval([0.0] * 30)
    assert (low, high) == (0.0, pytest.approx(0.145, abs=0.01))
    assert share_interval([1.0] * 30) == (pytest.approx(1 - high), pytest.approx(1.0))


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 30, 127])
def test_student_is_the_integral_of_its_density(freedom: int):
    density = np.power(1 + np.linspace(0, 2.5, 100_001) ** 2 / freedom, -(freedom + 1) / 2)
    factor = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    assert student_p(2.5, freedom) == pytest.approx(1 - 2 * factor * np.trapezoid(density, dx=2.5e-5), abs=1e-6)
    assert student_p(student_quantile(0.95, freedom), freedom) == pytest.approx(0.05)
