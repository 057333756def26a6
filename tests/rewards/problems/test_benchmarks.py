import json
from pathlib import Path
from typing import Any

import pytest

from conf.catalogue import Benchmark, benchmarks, find_benchmarks
from conf.errors import BadInput
from conf.schema import Config
from conf.settings import changed
from rewards.problems import sources
from rewards.problems.benchmarks import load_benchmark


def write(path: Path, rows: list[dict[str, Any]]) -> Benchmark:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return find_benchmarks([f"file:{path}"])[0]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return changed(
        Config(),
        {
            "data.template": "Solve: {problem}",
            "data.problem_pattern": "^only the recipe's own problems (.*)$",
            "learner.problems_per_update": 1,
        },
    )


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("aime24", "aime24"),
        ("file:/data/my set.v2.jsonl", "my-set.v2"),
        ("hub:owner/sums/main:test", "sums-main-test"),
        ("reasoning_gym:chain_sum", "chain_sum"),
        ("heldout", "heldout"),
    ],
)
def test_every_benchmark_has_a_plain_name(asked: str, name: str) -> None:
    assert [benchmark.name for benchmark in find_benchmarks([asked])] == [name]


def test_benchmarks_of_the_paper_are_benchmarks() -> None:
    assert {"aime24", "aime25", "amc23", "math500", "gsm8k"} == benchmarks().keys()
    assert find_benchmarks([benchmark.source for benchmark in benchmarks().values()])


def test_problems_are_posed_as_the_recipe_poses_its_own(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    rows = [{"question": f"{a} + 1", "answer": f"because #### {a + 1}"} for a in range(8)]
    benchmark = write(tmp_path / "sums.jsonl", [*rows, {"question": "?", "answer": ""}])
    config = changed(config, {"data.problem_field": "problem"})
    posed = load_benchmark(benchmark, config, byte_tokenizer)
    assert all("Solve: " in problem.prompt for problem in posed.problems)
    assert {problem.gold for problem in posed.problems} == {str(a + 1) for a in range(8)}
    assert posed.dropped == {"empty problem or answer": 1}
    config = changed(config, {"limit": 3})
    assert load_benchmark(benchmark, config, byte_tokenizer).problems == posed.problems[:3]


def test_unusual_columns_are_named_by_the_recipe(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    benchmark = write(tmp_path / "sums.jsonl", [{"q": "1 + 1", "result": 2}])
    with pytest.raises(BadInput, match=r"data.problem_field: .*q, result"):
        load_benchmark(benchmark, config, byte_tokenizer)
    config = changed(config, {"data.problem_field": "q", "data.answer_field": "result"})
    assert load_benchmark(benchmark, config, byte_tokenizer).problems[0].gold == "2"


def test_named_benchmark_is_read_by_its_own_columns(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"problem": "not this", "question": "1 + 1", "answer": "2"}
    monkeypatch.setitem(sources.SCHEMES, "hub", lambda key, reference, data, seed: [sources.Row(row)])
    assert "1 + 1" in load_benchmark(benchmarks()["amc23"], config, byte_tokenizer).problems[0].prompt


def test_held_out_problems_are_the_recipes(config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"data.problem_pattern": "", "data.size": 20, "eval.problems": 10, "limit": 4})
    assert len(load_benchmark(find_benchmarks(["heldout"])[0], config, byte_tokenizer).problems) == 4
    config = changed(config, {"eval.problems": 0})
    with pytest.raises(BadInput, match=r"eval\.problems=0"):
        load_benchmark(find_benchmarks(["heldout"])[0], config, byte_tokenizer)


def test_what_held_out_problems_of_their_own_source_leave_out_is_known(
    config: Config, tmp_path: Path, byte_tokenizer: Any
) -> None:
    rows = [{"problem": f"{a} + 1", "answer": str(a + 1)} for a in range(4)]
    config = changed(
        config,
        {
            "data.problem_pattern": "",
            "data.eval_source": write(tmp_path / "own.jsonl", [*rows, rows[0], {"problem": "?", "answer": ""}]).source,
        },
    )
    posed = load_benchmark(find_benchmarks(["heldout"])[0], config, byte_tokenizer)
    assert posed.dropped == {"empty problem or answer": 1, "duplicate": 1}


def test_source_without_a_usable_problem_is_refused(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="1 empty problem"):
        load_benchmark(write(tmp_path / "x.jsonl", [{"problem": "", "answer": "1"}]), config, byte_tokenizer)
