import json
from importlib import import_module
from pathlib import Path

import pytest

from tests.benches import memory
from tests.benches.__main__ import BENCHES, main
from tests.benches.learner import Case, measure
from tests.benches.results import Result, Row

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("arguments", "words"), [(["learner", "memory"], "learner memory"), (["lerner"], "learner")])
def test_a_bench_has_to_be_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err
    assert all(callable(import_module(f"tests.benches.{name}").run) for name in BENCHES)


def test_results_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = Result((Row("r=8", "tokens_per_second", 300.0, 100.0),), {"matmul FLOP/s": 1e12}, ("a note",))
    document = json.loads(result.write("learner", tmp_path / "bench").read_text())
    row = {"case": "r=8", "metric": "tokens_per_second", "value": 300.0, "baseline": 100.0, "ratio": 3.0}
    assert (document["rows"], document["limit"]) == ([row], {"matmul FLOP/s": 1e12})
    assert document["machine"]["cores"] > 0
    result.show("learner")
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("r=8", "tokens_per_second", "300", "3.00", "matmul FLOP/s", "a note"))


@pytest.mark.slow
def test_learner_measures_both_sides() -> None:
    for side in ("ours", "plain"):
        assert measure(side, Case("", 8, 1, 2, 256))["tokens_per_second"] > 0


@pytest.mark.slow
def test_memory_measures_real_processes() -> None:
    found = memory.measure(8, 24)
    assert found.keys() == {"engine_gib", "learner_gib", "cache_tokens"}
    assert all(planned / 2 < measured < planned * 2 for measured, planned in found.values())
