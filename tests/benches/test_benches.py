"""The benches start, and their mixes are what they claim."""

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
from tests.benches.results import Result, Row
from tests.benches.verify import algebra, easy, huge, latex, mix


@pytest.mark.parametrize(("arguments", "words"), [(["learner", "memory"], "one bench"), (["lerner"], "learner")])
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


def test_mixes_are_varied_and_repeatable() -> None:
    groups = batch(Case("", 8, 2, 8, 512)).groups
    lengths = [len(group.problem.prompt_ids) + len(s.token_ids) for group in groups for s in group.samples]
    assert max(lengths) == 512
    assert min(lengths) < 256
    questions = mix(1000, "huge")
    assert questions == mix(1000, "huge")
    assert len(set(questions)) > 900


def test_only_algebra_needs_algebra() -> None:
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
    assert all(planned / 2 < measured < planned * 2 for measured, planned in found.values())
