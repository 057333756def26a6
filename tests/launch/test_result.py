import json
from pathlib import Path

import pytest

from launch import result
from launch.reporting import conclusion
from tests.run_folders import write_run


def test_report_and_conclusion_are_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "one")
    (folder / "report.html").touch()
    assert result.main([str(folder)]) == 0
    *_, report, last = capsys.readouterr().out.splitlines()
    assert report.endswith(f"report: {folder / 'report.html'}")
    assert last.strip() == conclusion(folder)
    assert conclusion(folder).startswith("It learned")


def test_summary_alone_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"status": "budget_exhausted", "updates": 40, "spent_s": 594.0, "reason": "it was time"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert result.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for expected in ("completed, with its time budget used", "40 updates", "9.9 min", "No conclusion"):
        assert expected in said
