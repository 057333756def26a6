from pathlib import Path

from actors.coordinator.rules.pass_rates import MOVERS
from actors.storage.files import write_rows
from actors.storage.state import PassRateRow
from launch.reporting.history import read_run
from launch.reporting.page import run_report
from launch.reporting.parts.pass_rates import tables
from tests.run_folders import HOSTILE, write_run


def test_rates_at_first_and_at_last_and_the_problems_that_moved_most(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    assert tables(read_run(folder)) == []
    rates = [(0.0, number / 30) for number in range(30)] + [(1.0, 0.5), (0.5, 0.5), (1.0, 1.0)]
    rows = [
        PassRateRow(problem=f"p{number}", tries=16, rate=last, first=first, version=9)
        for number, (first, last) in enumerate(rates)
    ]
    rows[29] = rows[29].model_copy(update={"prompt": f"Solve:\nWhat is it? {HOSTILE}"})
    rows[28] = rows[28].model_copy(update={"prompt": "Solve:\nWhat is that?"})
    write_rows(folder / "pass-rates.jsonl", rows)
    histogram, moved = tables(run := read_run(folder))
    assert [row[1:] for row in histogram.body] == [("30", "2"), ("0", "6"), ("1", "17"), ("0", "6"), ("2", "2")]
    assert "33" in histogram.note
    names = [row[0] for row in moved.body]
    assert len(names) == MOVERS + 1
    assert names[1:] == ["What is that?", *(f"p{number}" for number in range(27, 19, -1)), "p30"]
    assert names[0].startswith("What is it?")
    assert moved.body[-1][1:] == ("100\N{NO-BREAK SPACE}%", "50\N{NO-BREAK SPACE}%", "−50.0")
    report = run_report(run)
    assert "Training problems by pass rate" in report.markdown
    assert "<script>alert" not in report.html
