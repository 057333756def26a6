from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.conf.catalogue import Benchmark, find_benchmarks
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import command_line, load
from microbudget_rl.conf.schema import Config, SweepCommandLine
from microbudget_rl.conf.settings import changed
from microbudget_rl.rewards.problems.contamination import near_duplicates
from microbudget_rl.rewards.problems.loading import (
    CHOSE,
    TRAIN_SEED,
    load_benchmark,
    read_benchmark,
    read_problems,
)
from microbudget_rl.rewards.problems.rows import RawProblem
from microbudget_rl.rewards.problems.sources import Row
from tests.json_lines import write_rows
from tests.rewards.problems.rows import Rows, problem_row

pytestmark = pytest.mark.long


@pytest.fixture
def config() -> Config:
    settings = {"data.template": "Solve: {problem}", "data.problem_pattern": "^only the recipe's own problems (.*)$"}
    return changed(Config(), {**settings, "learner.problems_per_update": 1})


def write(rows: Rows) -> Benchmark:
    write_rows(Path("benchmark.jsonl"), rows)
    return find_benchmarks(["file:benchmark.jsonl"])[0]


def test_benchmarks_use_the_recipes_template(config: Config, tiny_tokenizer: Any):
    rows: Rows = [{"question": f"{a} + 1", "answer": f"because #### {a + 1}"} for a in range(8)]
    benchmark = write([*rows, {"question": "?", "answer": ""}])
    config = changed(config, {"data.problem_field": "problem"})
    loaded = load_benchmark(benchmark, config, tiny_tokenizer)
    assert all("Solve: " in problem.prompt for problem in loaded.problems)
    assert {problem.gold for problem in loaded.problems} == {str(a + 1) for a in range(8)}
    assert loaded.filtered_counts == {"empty problem or answer": 1}
    limited = load_benchmark(benchmark, config, tiny_tokenizer, limit=3)
    assert limited.problems == loaded.problems[:3]


def test_the_recipe_names_unusual_columns(config: Config, tiny_tokenizer: Any):
    benchmark = write([{"q": "1 + 1", "result": 2}])
    with pytest.raises(BadInput, match=r"data.problem_field: .*q, result"):
        load_benchmark(benchmark, config, tiny_tokenizer)
    with pytest.raises(BadInput, match="1 empty problem"):
        load_benchmark(write([problem_row("", "1")]), config, tiny_tokenizer)
    benchmark, config = (
        write([{"q": "1 + 1", "result": 2}]),
        changed(config, {"data.problem_field": "q", "data.answer_field": "result"}),
    )
    assert load_benchmark(benchmark, config, tiny_tokenizer).problems[0].gold == "2"


def test_another_generator_has_none_of_the_parameters_of_the_training_source(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    given = list[Any]()
    monkeypatch.setattr(
        "microbudget_rl.rewards.problems.sources.read",
        lambda key, source, data, seed: given.append(data) or [Row({"text": "1"})],
    )
    config = changed(config, {"data.source": "reasoning_gym:chain_sum", "data.parameters": {"max_terms": 9}})
    for benchmark in find_benchmarks(["reasoning_gym:gcd", "reasoning_gym:chain_sum"]):
        with pytest.raises(BadInput, match=r"columns \(text\)"):
            read_benchmark(benchmark, config.data, [], 4)
    assert [data.parameters for data in given] == [{}, {"max_terms": 9}]


def test_heldout_problems_are_the_recipes(config: Config, tiny_tokenizer: Any):
    [heldout] = find_benchmarks(["heldout"])
    config = changed(config, {"data.problem_pattern": "", "data.size": 20, "eval.problems": 10})
    assert len(load_benchmark(heldout, config, tiny_tokenizer, limit=4).problems) == 4
    with pytest.raises(BadInput, match=r"eval\.problems=0"):
        load_benchmark(heldout, changed(config, {"eval.problems": 0}), tiny_tokenizer)


def test_problems_that_chose_the_policy_are_filtered_and_counted(config: Config, tiny_tokenizer: Any):
    benchmark = write([{"question": f"{a} + 1", "answer": f"{a + 1}"} for a in range(8)])
    everything = load_benchmark(benchmark, config, tiny_tokenizer).problems
    golds = [everything[place].gold for place in (0, 5)]
    chose = [RawProblem(f"Add 1 + {int(gold) - 1}.", gold) for gold in golds] + [RawProblem("another", "1")]
    loaded = load_benchmark(benchmark, config, tiny_tokenizer, limit=4, chose=chose)
    assert loaded.problems == (*everything[1:5],)
    assert loaded.filtered_counts == {CHOSE: 2}


TOYS = ("one_digit", "two_digits", "three_terms")


def test_toy_benchmarks_are_in_the_package_and_apart_from_the_problems_of_their_recipe(tiny_tokenizer: Any):
    """The working directory is another one."""
    config = load(["conf=paper_small", "rollout.max_prompt_tokens=1024"])
    toys = command_line(["conf=paper_small"], SweepCommandLine).sweep.benchmarks
    found = [load_benchmark(each, config, tiny_tokenizer) for each in find_benchmarks(toys)]
    assert [(each.benchmark.name, len(each.problems), each.filtered_counts) for each in found] == [
        (name, 36, {}) for name in TOYS
    ]
    own = read_problems("data.source", config.data.source, config.data, TRAIN_SEED, [])
    asked = [one for each in find_benchmarks(toys) for one in read_benchmark(each, config.data, [])]
    assert len(own) > 250
    assert len(asked) == 108
    assert not any(near_duplicates(own, asked))
