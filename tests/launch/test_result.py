import json
from pathlib import Path
from typing import Any

import pytest

from launch import result
from launch.result import describe

SIZES = {"n": 2, "problems": 128, "mean_length": 20.0, "truncated": 0.1}
SUMMARY: dict[str, Any] = {
    "status": "budget_exhausted",
    "updates": 40,
    "spent_s": 594.0,
    "reason": "no further update fits",
    "eval": {
        "base": {"pass@1": 0.05, "ci95": [0.02, 0.09], **SIZES},
        "final": {"pass@1": 0.625, "ci95": [0.55, 0.7], **SIZES},
    },
}


def test_before_and_after_stand_in_one_line() -> None:
    assert describe(SUMMARY) == [
        "budget_exhausted after 40 updates in 9.9 min: no further update fits",
        "held-out pass@1: 0.050 before, 0.625 after (95 % interval 0.550–0.700; 128 problems, 2 samples each)",
    ]


def test_a_run_without_evaluation_has_one_line() -> None:
    assert len(describe({**SUMMARY, "eval": {"base": None, "final": None}})) == 1


def test_report_is_pointed_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "report.html").touch()
    assert result.main([str(tmp_path)]) == 0
    assert f"report: {tmp_path / 'report.html'}" in capsys.readouterr().out
