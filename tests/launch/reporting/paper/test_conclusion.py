from pathlib import Path

import pytest

from microbudget_rl.actors.evaluation.statistics import Difference
from microbudget_rl.launch.reporting.history import read_sweep
from microbudget_rl.launch.reporting.paper.conclusion import FELL, ONE_SEED, ROSE, UNDECIDED, conclude, verdict
from microbudget_rl.launch.reporting.paper.results import gain, read_results
from tests.run_folders import write_benchmarked

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("interval", "problems", "expected"),
    [
        ((0.0, 0.05), 0, ROSE),
        ((-0.05, -0.02), 0, FELL),
        ((-0.1, 0.0), 0, UNDECIDED),
        (None, 9, UNDECIDED),
        (None, 0, ONE_SEED),
    ],
)
def test_interval_decides(interval: tuple[float, float] | None, problems: int, expected: str):
    assert verdict(Difference(0.0, interval), problems) == expected


def test_models_rise_and_fall_by_their_seeds(tmp_path: Path):
    models = {
        "Qwen/Qwen2.5-Math-1.5B": {8: -0.05, 256: -0.2},
        "agentica-org/DeepScaleR-1.5B-Preview": {8: 0.05, 256: 0.11},
    }
    results = read_results(read_sweep(write_benchmarked(tmp_path / "paper", models, seeds=range(4))))
    assert "rose for DeepScaleR-1.5B-Preview (+14.0); fell for Qwen2.5-Math-1.5B" in conclude(results)
    results = read_results(read_sweep(write_benchmarked(tmp_path / "one", models)))
    assert f"{ONE_SEED} for" in conclude(results)


def test_seeds_widen_what_problems_cannot_tell(tmp_path: Path):
    """Two seeds 2 points apart: the mean and, in each interval, what seeds differ by."""
    folder = write_benchmarked(tmp_path / "toy", {"owner/tiny": {1: 0.1}}, seeds=(0, 1), benchmarks={"sums": 50})
    results = read_results(read_sweep(folder))
    found = gain(results[0], results[0].shown)
    assert found
    difference, basis, _ = found
    assert basis == "2\xa0seeds, 50\xa0problems of tiny"
    assert difference.value == pytest.approx(0.11, abs=0.001)
    assert difference.interval
    margin = (
        12.706 * (0.01**2 + 0.0153**2) ** 0.5
    )  # Student's t of one degree of freedom; error of seeds, and of the base
    assert difference.interval[1] - difference.value == pytest.approx(margin, rel=0.01)
