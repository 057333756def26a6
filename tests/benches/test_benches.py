"""The benches run, and measure what they say."""

import json
import random
from importlib import import_module
from pathlib import Path

import pytest

from actors.messages import Status
from rewards.verify.comparison import decide_by_text
from rewards.verify.text.spelling import plain
from tests.benches import memory
from tests.benches.__main__ import BENCHES, main
from tests.benches.learner import Case, batch, measure
from tests.benches.table import Result, Row
from tests.benches.verify import algebra, easy, huge, latex, mix

RESULT = Result((Row("r=8", "tokens_per_second", 300.0, 100.0),), {"matmul FLOP/s": 1e12}, ("a note",))


@pytest.mark.parametrize(("arguments", "words"), [(["learner", "memory"], "one bench"), (["lerner"], "learner")])
def test_a_bench_has_to_be_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_can_be_run(name: str) -> None:
    assert callable(import_module(f"tests.benches.{name}").run)


def test_results_are_written_with_machine_and_ratios(tmp_path: Path) -> None:
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


def test_work_of_learner_is_mixed_and_as_long_as_asked() -> None:
    groups = batch(Case("", 8, 2, 8, 512)).groups
    lengths = [len(group.problem.prompt_ids) + len(s.token_ids) for group in groups for s in group.samples]
    assert max(lengths) == 512
    assert min(lengths) < 256


def test_mix_of_verify_is_repeatable_and_hardly_repeats_itself() -> None:
    questions = mix(1000, "huge")
    assert questions == mix(1000, "huge")
    assert len(set(questions)) > 900


def test_only_algebra_in_verify_needs_algebra() -> None:
    rng = random.Random(0)
    for _ in range(100):
        assert decide_by_text(*map(plain, easy(rng))) in (Status.CORRECT, Status.WRONG)
        assert decide_by_text(*map(plain, huge(rng))) in (Status.WRONG, Status.UNPARSABLE)
        assert decide_by_text(*map(plain, algebra(rng))) is None
    assert any(decide_by_text(*map(plain, latex(rng))) is None for _ in range(20))


@pytest.mark.slow
def test_learner_measures_both_sides() -> None:
    for side in ("ours", "plain"):
        found = measure(side, Case("", 8, 1, 2, 256))
        assert found["tokens_per_second"] > 0
        assert found["peak_memory"] >= 0


@pytest.mark.slow
def test_memory_measures_real_processes() -> None:
    found = memory.measure(memory.Case(rank=8, response=24))
    assert found.keys() == {"engine_gib", "learner_gib", "cache_tokens"}
    for measured, planned in found.values():
        assert planned / 2 < measured < planned * 2
