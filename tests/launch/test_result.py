import json
from pathlib import Path
from typing import Any

import pytest

from launch import result
from launch.result import describe

SUMMARY: dict[str, Any] = {
    "status": "budget_exhausted",
    "updates": 40,
    "spent_s": 594.0,
    "reason": "no further update fits",
    "eval": {
        "base": {"pass@1": 0.05, "n": 2, "problems": 128, "ci95": [0.02, 0.09]},
        "final": {"pass@1": 0.625, "n": 2, "problems": 128, "ci95": [0.55, 0.7]},
    },
}


def test_before_and_after_stand_in_one_line() -> None:
    assert describe(SUMMARY) == [
        "budget_exhausted after 40 updates in 9.9 minutes: no further update fits",
        "held-out pass@1: 0.050 before, 0.625 after (95 % interval 0.550–0.700; 128 problems, 2 samples each)",
    ]


def test_a_run_without_evaluation_has_one_line() -> None:
    assert len(describe({**SUMMARY, "eval": {"base": None, "final": None}})) == 1


def test_report_is_pointed_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "report.html").touch()
    monkeypatch.setattr("sys.argv", ["result", str(tmp_path)])
    assert result.main() == 0
    assert f"report: {tmp_path / 'report.html'}" in capsys.readouterr().out
