import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.sweeps.shared_budget import allowance, halfway_accuracy


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_shared_budget_is_kept_and_used_up(shares: list[float]) -> None:
    """Whatever share of its part each cell takes, none gets less than an equal part, and together they fit."""
    spent: list[float] = []
    for share in shares:
        part = allowance(3600.0, spent, len(shares))
        assert part >= 3600 / len(shares) * (1 - 1e-9)
        spent.append(share * part)
    assert sum(spent) <= 3600 * (1 + 1e-9)
    if shares[-1] == 1:
        assert sum(spent) == pytest.approx(3600)


def row(share: float, accuracy: float) -> dict[str, float]:
    return {"budget/spent_s": 100 * share, "budget/left_s": 100 * (1 - share), "reward/accuracy": accuracy}


def test_a_cell_is_judged_half_way_by_the_tenth_of_its_budget_before() -> None:
    early = [row(0.1, 0.9), row(0.39, 0.9), row(0.42, 0.2), row(0.48, 0.4)]
    assert halfway_accuracy(early) is None
    assert halfway_accuracy([*early, row(0.6, 1.0)]) == pytest.approx(0.3)
    assert halfway_accuracy([row(0.3, 0.5), row(0.7, 0.5)]) is None
