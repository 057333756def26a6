import json
from pathlib import Path
from typing import Any

import pytest

from launch.result import describe, finished

SUMMARY: dict[str, Any] = {
    "status": "budget_exhausted",
    "updates": 40,
    "spent_s": 594.0,
    "eval": {"base": {"pass@1": 0.05, "n": 128}, "final": {"pass@1": 0.625, "n": 128}},
}


@pytest.mark.parametrize(
    ("status", "is_finished"),
    [("completed", True), ("budget_exhausted", True), ("interrupted", False), ("halted", False), ("failed", False)],
)
def test_only_runs_that_reached_their_end_are_finished(tmp_path: Path, status: str, is_finished: bool) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({**SUMMARY, "status": status}))
    assert (finished(tmp_path) is not None) == is_finished


def test_a_run_without_summary_is_not_finished(tmp_path: Path) -> None:
    assert finished(tmp_path) is None


def test_the_change_is_told_in_points() -> None:
    assert describe(SUMMARY) == [
        "budget_exhausted after 40 updates in 9.9 minutes",
        "held-out pass@1: 5.0% before, 62.5% after (+57.5 points, 128 problems)",
    ]


def test_a_run_without_evaluation_has_one_line() -> None:
    assert describe({**SUMMARY, "eval": {}}) == ["budget_exhausted after 40 updates in 9.9 minutes"]
