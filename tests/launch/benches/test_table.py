import json
from pathlib import Path

import pytest

from launch.benches.table import Result, Row

RESULT = Result((Row("r=8", "tokens_per_second", 300.0, 100.0),), {"matmul FLOP/s": 1e12}, ("a note",))


def test_results_are_written_with_the_machine_and_ratios(tmp_path: Path) -> None:
    document = json.loads(RESULT.write("learner", tmp_path / "bench").read_text())
    assert document["rows"] == [
        {"case": "r=8", "metric": "tokens_per_second", "value": 300.0, "baseline": 100.0, "ratio": 3.0}
    ]
    assert document["machine"]["cores"] > 0
    assert document["limit"] == {"matmul FLOP/s": 1e12}


def test_results_are_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    RESULT.show("learner")
    shown = capsys.readouterr().out
    for words in ("r=8", "tokens_per_second", "300", "3.00", "matmul FLOP/s", "a note"):
        assert words in shown
