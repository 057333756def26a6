import json
from pathlib import Path

import pytest

from launch.bench import main, names, show, write
from launch.benches import memory
from launch.benches.learner import Case, batch, measure
from launch.benches.report import Report, Row

REPORT = Report((Row("r=8", "tokens_per_second", 300.0, 100.0),), {"matmul FLOP/s": 1e12}, ("a note",))


def test_report_is_written_with_the_machine_and_ratios(tmp_path: Path) -> None:
    document = json.loads(write("learner", REPORT, tmp_path / "bench").read_text())
    assert document["rows"] == [
        {"case": "r=8", "metric": "tokens_per_second", "value": 300.0, "baseline": 100.0, "ratio": 3.0}
    ]
    assert document["machine"]["cores"] > 0
    assert document["limit"] == {"matmul FLOP/s": 1e12}


def test_report_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show("learner", REPORT)
    shown = capsys.readouterr().out
    for words in ("r=8", "tokens_per_second", "300", "3.00", "matmul FLOP/s", "a note"):
        assert words in shown


@pytest.mark.parametrize(("arguments", "words"), [([], "name one bench"), (["lerner"], "learner")])
def test_a_bench_has_to_be_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_benches_are_found() -> None:
    assert {"learner", "end_to_end"} <= set(names())


def test_learners_work_is_mixed_and_as_long_as_asked() -> None:
    case = Case("", 8, 2, 8, 512)
    lengths = [len(g.problem.prompt_ids) + len(s.token_ids) for g in batch(case).groups for s in g.samples]
    assert max(lengths) == 512
    assert min(lengths) < 256


@pytest.mark.slow
def test_both_sides_of_the_learners_bench_run() -> None:
    case = Case("", 8, 1, 2, 256)
    for side in ("ours", "plain"):
        found = measure(side, case)
        assert found["tokens_per_second"] > 0
        assert found["peak_memory"] >= 0


@pytest.mark.slow
def test_real_processes_are_measured_by_the_bench_of_memory() -> None:
    found = memory.measure(memory.Case(rank=8, response=24))
    assert found.keys() == {"engine_gib", "learner_gib", "cache_tokens"}
    for measured, planned in found.values():
        assert planned / 2 < measured < planned * 2
