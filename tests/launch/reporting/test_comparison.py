from dataclasses import replace
from pathlib import Path

import pytest

from actors.evaluation.statistics import share_interval, student_quantile
from launch.reporting.comparison import by_settings, contrasts
from launch.reporting.history import RANK, Run
from launch.reporting.sweep_conclusion import caveats
from tests.run_folders import ranked, swept


def test_of_many_comparisons_each_must_show_more(tmp_path: Path) -> None:
    """Three seeds each, that solve some 5 and 8 of 24 problems, have p = 0.021: too much among ten comparisons."""
    two = contrasts(swept(tmp_path / "two", **ranked(3, r8=5, r16=8)))
    five = contrasts(swept(tmp_path / "five", **ranked(3, r1=5, r2=5, r4=5, r8=5, r16=8)))
    assert [c.difference.shown for c in two] == [True]
    assert two[0].difference.p == pytest.approx(0.0213, abs=1e-4)
    assert len(five) == 10
    assert not any(c.difference.shown for c in five)
    assert min(c.difference.p or 0.0 for c in five) == pytest.approx(10 * 0.0213, rel=0.01)
    for found, family in ((two[0], 1), (five[0], 10)):
        low, high = found.difference.interval or (0, 0)
        margin = student_quantile(1 - 0.05 / family, 4) * (2 / 3) ** 0.5 / 24
        assert high - low == pytest.approx(2 * margin)
    assert max(c.difference.p or 0.0 for c in five) == 1.0


def test_equal_seeds_are_compared_over_problems(tmp_path: Path) -> None:
    each = {f"r{r}-{seed}": {"rank": r, "seed": seed, "after": r} for r in (8, 16) for seed in range(3)}
    sweep = swept(tmp_path, **each)
    (found,) = contrasts(sweep)
    mean = by_settings(sweep)[0].final
    assert mean is not None
    assert mean.interval == share_interval([1.0] * 8 + [0.0] * 16)
    assert by_settings(sweep)[0].basis.endswith("over problems")
    assert found.basis.replace("\N{NO-BREAK SPACE}", " ") == "3 seeds each, over problems"
    assert found.difference.p == pytest.approx(0.0079, abs=1e-4)


def test_values_with_other_held_out_problems_are_not_compared(tmp_path: Path) -> None:
    sweep = swept(tmp_path, **ranked(3, r8=5, r16=12, r64=20))

    def renamed(run: Run) -> Run:
        other = [row.model_copy(update={"problem": f"other {row.problem}"}) for row in run.samples["final"]]
        return replace(run, samples={"final": other}) if run.config[RANK] == 64 else run

    renamed_runs = tuple(map(renamed, sweep.runs))
    (found,) = contrasts(replace(sweep, runs=renamed_runs))
    assert (found.low.settings[RANK], found.high.settings[RANK], found.family) == (8, 16, 1)
    assert any("data.eval_source" in note for note in caveats(replace(sweep, runs=renamed_runs)))
    assert not any("data.eval_source" in note for note in caveats(sweep))


def test_a_seed_run_twice_is_one_seed(tmp_path: Path) -> None:
    each = {name: {"rank": 8, "seed": seed, "after": after} for name, seed, after in (("a", 0, 6), ("b", 0, 12))}
    (repeats,) = by_settings(swept(tmp_path, **each))
    assert repeats.values == [pytest.approx(9 / 24)]
