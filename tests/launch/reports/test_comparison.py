from math import gamma, pi, sqrt
from pathlib import Path

import numpy as np
import pytest

from launch.reports.comparison import T_975, answer, contrasts, groups, over_seeds
from launch.reports.history import read_sweep
from tests.run_folders import write_sweep


@pytest.mark.parametrize("freedom", [1, 2, 5, 30])
def test_quantiles_leave_two_and_a_half_percent(freedom: int) -> None:
    """By integration of the density of Student's t."""
    factor = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    grid = np.linspace(0, T_975[freedom - 1], 200_001)
    inside = np.trapezoid(factor * (1 + grid**2 / freedom) ** (-(freedom + 1) / 2), grid)
    assert inside == pytest.approx(0.475, abs=1e-4)


def test_interval_over_seeds_by_hand() -> None:
    low, high = over_seeds([0.5, 0.6, 0.7])
    assert (low + high) / 2 == pytest.approx(0.6)
    assert (high - low) / 2 == pytest.approx(4.303 * 0.1 / sqrt(3))


def test_rank_that_matters_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    def run(rank: int, seed: int, after: int) -> dict[str, int]:
        return {"rank": rank, "seed": seed, "after": after}

    apart = {f"r{r}-{s}": run(r, s, (6 if r == 8 else 18) + s % 2) for r in (8, 256) for s in range(3)}
    alike = {f"r{r}-{s}": run(r, s, 12 + 3 * (s % 2)) for r in (8, 256) for s in range(3)}
    answers = [
        answer(read_sweep(write_sweep(tmp_path / name, cells))).replace("\N{NO-BREAK SPACE}", " ")
        for name, cells in (("apart", apart), ("alike", alike))
    ]
    assert answers[0].startswith("Rank matters here: rank 256 ends 50.0 points above rank 8 (95 % interval")
    assert answers[1].startswith("No effect of the rank can be shown here: rank 256 ends level with rank 8 (95 %")


def test_best_learning_rate_of_each_rank_is_compared_too(tmp_path: Path) -> None:
    """Rank 8 is behind at one learning rate, and level at its own best."""
    results = {(8, 1e-5): 4, (8, 1e-4): 18, (256, 1e-5): 18, (256, 1e-4): 10}
    cells = {f"r{r}-{lr}": {"rank": r, "learning_rate": lr, "after": after} for (r, lr), after in results.items()}
    found = contrasts(read_sweep(write_sweep(tmp_path / "sweep", cells)))
    assert [(c.best, round(c.difference * 24)) for c in found] == [(False, 14), (False, -8), (True, 0)]
    assert found[0].shown
    assert not found[2].shown
    assert found[0].basis == "1 seed each, over problems"


def test_cells_without_result_are_in_no_mean_but_named(tmp_path: Path) -> None:
    cells = {
        "r8-0": {"rank": 8, "seed": 0},
        "r8-1": {"rank": 8, "seed": 1, "after": None, "status": "failed"},
        "r64-0": {"rank": 64, "seed": 0, "status": "pending"},
    }
    sweep = read_sweep(write_sweep(tmp_path / "sweep", cells))
    assert [len(group.values) for group in groups(sweep)] == [1, 0]
    assert "No verdict" in answer(sweep)
    assert "1 of 3" in answer(sweep)


def test_entropy_is_compared_by_one_measure(tmp_path: Path) -> None:
    """On the probe if all finished runs have measured it there, else over the updates."""
    probe = {"probe_entropy": {"before": 1.0, "after": 0.2, "change": -0.8}}
    cells = {"a": {"rank": 8, "plasticity": probe}, "b": {"rank": 64}}
    mixed = groups(read_sweep(write_sweep(tmp_path / "mixed", cells)))
    both = groups(read_sweep(write_sweep(tmp_path / "both", cells | {"b": {"rank": 64, "plasticity": probe}})))
    assert [group.entropy and round(group.entropy.value, 2) for group in mixed] == [-0.46, -0.46]
    assert [group.entropy and round(group.entropy.value, 2) for group in both] == [-0.8, -0.8]
