import re
from pathlib import Path

import pytest

from microbudget_rl.actors.evaluation.statistics import Difference
from microbudget_rl.actors.results import Results
from microbudget_rl.actors.storage.documents import MetricsRow
from microbudget_rl.launch.reporting import write
from microbudget_rl.launch.reporting.history import LEARNING_RATE, RANK, SEED, read_sweep
from microbudget_rl.launch.reporting.paper.claims import ONE_SEED, conclude, findings, flags, verdict, verdict_on_size
from microbudget_rl.launch.reporting.paper.results import ModelResults, SettingResults, gain, read_results
from tests.run_folders import write_benchmarked


@pytest.mark.parametrize(
    ("interval", "verdicts"),
    [
        ((0.02, 0.05), "supported contradicted contradicted contradicted"),
        ((-0.05, -0.02), "contradicted supported contradicted contradicted"),
        ((0.05, 0.2), "supported contradicted supported contradicted"),
        ((-0.1, 0.2), "undecided undecided undecided undecided"),
        ((-0.005, 0.005), "undecided undecided contradicted supported"),
        (None, "undecided undecided undecided undecided"),
    ],
)
def test_interval_decides(interval: tuple[float, float] | None, verdicts: str) -> None:
    """A rise, a fall, a rise by 11.1 points, and equality within a point."""
    known = Difference(0.0, interval)
    found = [verdict(known, low=0.0), verdict(known, high=0.0), verdict_on_size(known, 0.111)]
    assert [*found, verdict(known, -0.01, 0.01)] == verdicts.split()


def test_claims_are_tested_on_their_models_and_benchmarks(tmp_path: Path) -> None:
    """With one seed none is decided, however large the difference."""
    models = {
        "Qwen/Qwen2.5-1.5B-Instruct": {8: 0.0, 256: 0.0},
        "Qwen/Qwen2.5-Math-1.5B": {8: -0.05, 256: -0.2},
        "agentica-org/DeepScaleR-1.5B-Preview": {8: 0.05, 256: 0.11},
    }
    results = read_results(read_sweep(write_benchmarked(tmp_path / "paper", models, seeds=range(4))))
    found = [of for _, of in findings(results)]
    assert [judged for judged, _ in found] == ["undecided", "supported", "supported", "undecided", "supported"]
    assert "+14.0 points" in found[2][1]
    assert "30\xa0problems of DeepScaleR-1.5B-Preview" in found[2][1]
    assert "for 5\xa0claims together" in found[2][1]
    assert "rose for DeepScaleR-1.5B-Preview (+14.0); fell for Qwen2.5-Math-1.5B" in conclude(results)
    results = read_results(read_sweep(write_benchmarked(tmp_path / "one", models)))
    found = [of for _, of in findings(results)]
    assert {judged for judged, _ in found} == {ONE_SEED}
    assert re.search(r"20\.0 points .*would decide it", found[1][1])
    assert f"is {ONE_SEED} for" in conclude(results)


def test_claims_without_their_models_are_not_tested(tmp_path: Path) -> None:
    """The entropy falls by 13 and 73 % at ranks 1 and 64."""
    folder = write_benchmarked(tmp_path / "toy", {"bundled:smollm2-135m": {1: 0.1, 8: 0.3, 64: 0.25}}, seeds=range(3))
    results = read_results(read_sweep(folder))
    expected = ["supported", "not tested", "not tested", "contradicted", "contradicted"]
    assert [of[0] for _, of in findings(results)] == expected
    rise = flags(results)[0]
    assert rise.title == "The highest rank gains more than the lowest in instruct models"
    assert "rank 64 minus rank 1" in rise.detail
    assert "The paper says more: rank 8 fails" in rise.detail


def test_seeds_widen_what_problems_cannot_tell(tmp_path: Path) -> None:
    """Two seeds 2 points apart: the mean and, in each interval, what seeds differ by. The model has no part in the
    paper's claims.
    """
    folder = write_benchmarked(tmp_path / "toy", {"owner/tiny": {1: 0.1}}, seeds=(0, 1), benchmarks={"sums": 50})
    results = read_results(read_sweep(folder))
    found = gain(results)
    assert found
    difference, basis, _ = found
    assert basis == "2\xa0seeds, 50\xa0problems of tiny"
    assert difference.value == pytest.approx(0.11, abs=0.001)
    assert difference.interval
    margin = (
        12.706 * (0.01**2 + 0.0153**2) ** 0.5
    )  # Student's t of one degree of freedom; error of seeds, and of the base
    assert difference.interval[1] - difference.value == pytest.approx(margin, rel=0.01)
    assert flags(results) == []
    assert 'id="claims"' not in write(folder).read_text()


def test_settings_are_no_seeds(tmp_path: Path) -> None:
    """Two learning rates 40 points apart, with two seeds 2 points apart, are shown together."""

    def run(seed: int, change: float) -> Results:
        rows = ({"update": at, "policy/entropy": 1 + change * (at - 1)} for at in (1, 2))
        return Results("tiny", tmp_path, {RANK: 8, SEED: seed}, rows=tuple(map(MetricsRow.model_validate, rows)))

    settings = {1e-5: ((0.50, 0.52), (-0.1, -0.2)), 1e-4: ((0.90, 0.92), (-0.3, -0.4))}
    trained = list[SettingResults]()
    for rate, (levels, changes) in settings.items():
        scores = {seed: {"sums": {1: {"a": level, "b": level}}} for seed, level in enumerate(levels)}
        trained.append(SettingResults({LEARNING_RATE: rate}, tuple(map(run, (0, 1), changes)), scores))
    model = ModelResults("tiny", "", {"sums": {1: {"a": 0.3, "b": 0.3}, 10**6: {}}}, tuple(trained))
    assert model.entropy_changes(8) == pytest.approx([-0.2, -0.3])
    found = gain([model])
    assert found
    difference, basis, _ = found
    assert basis == "2\xa0seeds, 2\xa0problems of tiny"
    assert difference.value == pytest.approx(0.41)
    assert difference.interval
    margin = 12.706 * 0.02 / 2  # Student's t of one degree of freedom
    assert difference.interval[1] - difference.value == pytest.approx(margin, rel=0.01)
