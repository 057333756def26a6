import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.sweeps.shared_budget import allowance, final_accuracy, halfway_accuracy


@given(st.lists(st.tuples(st.floats(0.1, 3), st.floats(0, 1)), min_size=1, max_size=9))
def test_a_shared_budget_is_kept_and_used_up(cells: list[tuple[float, float]]) -> None:
    """Whatever share of its part each cell takes, none gets less than its weight says, and together they fit."""
    left, weights = 3600.0, sum(weight for weight, _ in cells)
    each = left / weights
    for weight, share in cells:
        part = allowance(left, weight, weights)
        assert part >= each * weight * (1 - 1e-9)
        left, weights = left - share * part, weights - weight
    assert left >= -1e-6
    if cells[-1][1] == 1:
        assert left == pytest.approx(0, abs=1e-6)


def test_a_trial_is_judged_by_the_last_fifth_of_its_updates() -> None:
    accuracies = [0.0] * 8 + [0.2, 0.4]
    assert final_accuracy([row(0.1, accuracy) for accuracy in accuracies]) == pytest.approx(0.3)
    assert final_accuracy([row(0.1, 0.7)]) == 0.7
    assert final_accuracy([]) is None


def row(share: float, accuracy: float) -> dict[str, float]:
    return {"budget/spent_s": 100 * share, "budget/left_s": 100 * (1 - share), "reward/accuracy": accuracy}


def test_a_cell_is_judged_half_way_by_the_tenth_of_its_budget_before() -> None:
    early = [row(0.1, 0.9), row(0.39, 0.9), row(0.42, 0.2), row(0.48, 0.4)]
    assert halfway_accuracy(early) is None
    assert halfway_accuracy([*early, row(0.6, 1.0)]) == pytest.approx(0.3)
    assert halfway_accuracy([row(0.3, 0.5), row(0.7, 0.5)]) is None
