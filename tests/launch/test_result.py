from pathlib import Path

import pytest

from actors.storage.documents import RunSummary
from actors.storage.files import write_document
from launch import result
from launch.reporting import conclusion
from launch.result import describe
from tests.run_folders import write_run

SUMMARY = RunSummary(status="budget_exhausted", updates=40, spent_s=594.0, reason="it was time")


def test_how_a_run_ended_is_one_line() -> None:
    assert describe(SUMMARY).startswith("budget_exhausted after 40 updates in 9.9 min")


def test_the_report_and_its_conclusion_are_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "one")
    (folder / "report.html").touch()
    assert result.main([str(folder)]) == 0
    *_, report, last = capsys.readouterr().out.splitlines()
    assert report.endswith(f"report: {folder / 'report.html'}")
    assert last.strip() == conclusion(folder)
    assert conclusion(folder).startswith("It learned")


def test_a_run_without_files_to_conclude_from_still_has_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_document(tmp_path / "summary.json", SUMMARY)
    assert result.main([str(tmp_path)]) == 0
    assert "No conclusion" in capsys.readouterr().out
