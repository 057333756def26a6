from pathlib import Path

from launch.reporting import sweep_tables
from launch.reporting.history import read_run, read_sweep
from launch.reporting.tables import evaluation, pairs
from launch.reporting.wording import compact
from tests.run_folders import write_evaluation, write_run, write_sweep


def test_settings_are_short_and_keep_their_value() -> None:
    written = {2e-4: "2e-4", 1.25e-5: "1.25e-5", 0.999: "0.999", 0.9999: "0.9999", 1440.0: "1440", 64: "64"}
    assert {value: compact(value) for value in written} == written


def test_samples_of_every_outcome_are_shown_changed_ones_first(tmp_path: Path) -> None:
    found = pairs(read_run(write_run(tmp_path / "one", before=2, after=18)))
    assert [pair.outcome for pair in found] == 2 * ["wrong before, right after", "wrong both times", "right both times"]
    assert all(pair.before.problem == pair.after.problem for pair in found)


def test_benchmarks_state_their_protocol(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    write_evaluation(folder)
    found = evaluation(read_run(folder))
    assert found.head == ("benchmark", "score", "base", "adapter")
    assert [row[0] for row in found.body if row[0]] == ["aime24, 30 problems", "sums, 10 problems"]
    for stated in ("p = 0.2", "sums: 4 of 16 samples", "temperature 0.6, top_p 0.95", "3584", "2 duplicate"):
        assert stated in found.note


def test_every_run_with_trouble_has_a_line(tmp_path: Path) -> None:
    each = {"r8": {"rank": 8}, "r64": {"rank": 64, "ledger": {"counts": {"deaths/rollout": 2}}}, "r256": {"rank": 256}}
    folder = write_sweep(tmp_path / "sweep", each)
    (folder / "r256" / "summary.json").write_text("{")
    found = sweep_tables.concerns(read_sweep(folder))
    assert [row[0] for row in found.body] == ["r64", "r256"]
    assert "2\N{NO-BREAK SPACE}failures" in found.body[0][1]
    assert "summary.json" in found.body[1][1]
