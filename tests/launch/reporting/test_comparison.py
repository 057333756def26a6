from dataclasses import replace
from math import sqrt
from pathlib import Path
from statistics import fmean, variance

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.evaluation.statistics import share_interval, student_quantile
from microbudget_rl.actors.results import Results
from microbudget_rl.conf.installation import ROOT
from microbudget_rl.launch.reporting.comparison import (
    SPREAD,
    by_settings,
    contrasts,
    holm,
    over_seeds,
    seeds_to_decide,
    welch_difference,
)
from microbudget_rl.launch.reporting.history import RANK
from microbudget_rl.launch.reporting.sweep_results import caveats
from tests.run_folders import ranked, swept


def test_of_many_comparisons_each_must_show_more(tmp_path: Path):
    """Three seeds each, that solve some 5 and 8 of 24 problems, have p = 0.021: too much among ten comparisons."""
    two = contrasts(swept(tmp_path / "two", **ranked(3, r8=5, r16=8)))
    five = contrasts(swept(tmp_path / "five", **ranked(3, r1=5, r2=5, r4=5, r8=5, r16=8)))
    assert [c.difference.shown for c in two] == [True]
    assert two[0].difference.p == pytest.approx(0.0213, abs=1e-4)
    assert not any(c.difference.shown for c in five)
    assert min(c.difference.p or 0.0 for c in five) == pytest.approx(10 * 0.0213, rel=0.01)
    for found, family in ((two[0], 1), (five[0], 10)):
        low, high = found.difference.interval or (0, 0)
        margin = student_quantile(1 - 0.05 / family, 4) * (2 / 3) ** 0.5 / 24
        assert high - low == pytest.approx(2 * margin)
    assert max(c.difference.p or 0.0 for c in five) == 1.0


def test_equal_seeds_are_compared_over_problems(tmp_path: Path):
    each = {f"r{r}-{seed}": {"rank": r, "seed": seed, "after": r} for r in (8, 16) for seed in range(3)}
    sweep = swept(tmp_path, **each)
    (found,) = contrasts(sweep)
    mean = by_settings(sweep)[0].final
    assert mean is not None
    assert mean.interval == share_interval([1.0] * 8 + [0.0] * 16)
    assert by_settings(sweep)[0].basis.endswith("over problems")
    assert found.basis.replace("\N{NO-BREAK SPACE}", " ") == "3 seeds each, over problems"
    assert found.difference.p == pytest.approx(0.0079, abs=1e-4)


def test_values_with_other_held_out_problems_are_not_compared(tmp_path: Path):
    sweep = swept(tmp_path, **ranked(3, r8=5, r16=12, r64=20))

    def renamed(run: Results) -> Results:
        other = [row.model_copy(update={"problem": f"other {row.problem}"}) for row in run.samples["final"]]
        return replace(run, samples={"final": other}) if run.config[RANK] == 64 else run

    renamed_runs = tuple(map(renamed, sweep.runs))
    (found,) = contrasts(replace(sweep, runs=renamed_runs))
    assert (found.low.settings[RANK], found.high.settings[RANK], found.family) == (8, 16, 1)
    assert any("data.eval_source" in note for note in caveats(replace(sweep, runs=renamed_runs)))
    assert not any("data.eval_source" in note for note in caveats(sweep))


def test_a_seed_run_twice_is_one_seed(tmp_path: Path):
    each = {name: {"rank": 8, "seed": seed, "after": after} for name, seed, after in (("a", 0, 6), ("b", 0, 12))}
    (repeats,) = by_settings(swept(tmp_path, **each))
    assert repeats.values == [pytest.approx(9 / 24)]


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_rejects_what_its_steps_reject(p_values: list[float]):
    """At any level: the smallest must be below level / m, the next below level / (m - 1), until one is not."""
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_interval_over_seeds_is_students():
    found = over_seeds([0.5, 0.6, 0.7])
    half = 4.30265 * 0.1 / sqrt(3)
    assert found.value == pytest.approx(0.6)
    assert found.interval == pytest.approx((0.6 - half, 0.6 + half))


@pytest.mark.parametrize(("low", "high"), [((3, 1.0), (3, 3.0)), ((5, 1.0), (2, 4.0)), ((2, 1.0), (5, 4.0))])
def test_equal_settings_of_unequal_spread_rarely_differ(low: tuple[int, float], high: tuple[int, float]):
    """Number of seeds and spread of each. One variance for both would find a difference in 8 and 27 % of the cases."""
    rng = np.random.default_rng(0)
    draws = zip(*(rng.normal(0.0, spread, (2000, seeds)).tolist() for seeds, spread in (low, high)), strict=True)
    assert fmean(welch_difference(*each).shown for each in draws) <= 0.055


PASSED = {
    "background/results.md": ["89.1 85.2 90.2", "85.2 78.9 87.5", "79 64 75", "91 87 86"],
    "studies/staleness.md": [
        "84.5 77.2 64.5 61.6 81.2 64.0 81.4 76.8 80.9 69.9",
        "81.7 70.9 69.4 68.4 80.1 68.5 71.4 64.8 73.9 73.6",
    ],
    "studies/group-size.md": [
        "79.7 76.5 65.9",
        "84.7 77.4 76.2 71.2 72.6",
        "86.5 75.0 65.0 60.9 79.7",
        "72.1 75.0 62.4",
    ],
    "studies/learning-rate.md": ["88.3 84.8 85.2"],
}
"""pass@1 of several seeds in percent, by page."""


def test_the_assumed_spread_over_seeds_is_that_of_the_documentations_tables():
    sets = [[float(value) for value in values.split()] for lists in PASSED.values() for values in lists]
    squares, freedom = sum((len(each) - 1) * variance(each) for each in sets), sum(len(each) - 1 for each in sets)
    assert round(sqrt(squares / freedom) / 100, 2) == SPREAD
    for page, lists in PASSED.items():
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert [value for value in " ".join(lists).split() if value not in text] == []


@pytest.mark.parametrize(("family", "sides", "needed"), [(1, 1, 5), (1, 2, 6), (5, 2, 9)])
def test_the_number_of_seeds_to_decide_is_the_least_that_does(family: int, sides: int, needed: int):
    """Ten points are more than 2.228 · 7 · √(2 / 6), of 10 degrees of freedom, and less than 2.306 · 7 · √(2 / 5)."""
    assert f"{needed}\xa0seeds" in seeds_to_decide(0.1, family, sides)
    assert "more than 20" in seeds_to_decide(0.001, family, sides)
