import pytest

from microbudget_rl.actors.coordinator.rules.way_back import is_broken, newest_exploring, updates_needed

ENTROPY = {1: 1.2, 2: 1.1, 3: 1.0, 4: 0.9, 5: 0.8, 6: 0.6, 7: 0.49, 8: 0.5, 9: 0.1}
"""By version; the early one is 1."""


@pytest.mark.parametrize(
    ("versions", "newest"), [([2, 6, 8, 9], 8), ([2, 6, 7, 9], 6), ([7, 9], 0), ([40], 0), ([], 0)]
)
def test_a_run_goes_back_to_the_newest_version_with_half_of_the_early_entropy(versions: list[int], newest: int):
    assert newest_exploring(ENTROPY, versions) == newest


def test_as_many_updates_must_fit_as_are_taken_back_and_ten():
    assert (updates_needed(40, 45), updates_needed(8, 45)) == (10, 37)


@pytest.mark.parametrize(
    ("early", "newest", "broken"), [(0.4, 1.1, True), (0.4, 0.9, False), (0.9, 1.7, False), (0.9, 1.9, True)]
)
def test_a_policy_is_broken_where_its_entropy_is_high_and_twice_the_early_one(
    early: float, newest: float, broken: bool
):
    values = [early] * 5 + [0.1] * 9 + [newest] * 5
    assert is_broken(dict(enumerate(values, 1))) == broken
    assert not is_broken(dict(enumerate(values[:-2], 1)))
