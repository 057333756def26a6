import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages import Problem
from conf.errors import BadInput
from conf.schema import Config, ExampleConfig
from rewards.problems import (
    BAD_GOLD,
    CONFLICT,
    DUPLICATE,
    EMPTY,
    HELD_OUT,
    NO_MATCH,
    SHOWN,
    TOO_LONG,
    ProblemOrder,
    load,
)

Rows = list[dict[str, Any]]
SUMS: Rows = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(30)]


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows))


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "jsonl": write_jsonl,
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Thirty sums in a file, of which ten are held out."""
    config = Config()
    write_jsonl(tmp_path / "sums.jsonl", SUMS)
    config.data.source = f"file:{tmp_path / 'sums.jsonl'}"
    config.eval.problems = 10
    config.learner.problems_per_update = 4
    return config


def texts(problems: tuple[Problem, ...]) -> set[str]:
    return {problem.prompt.split("\n")[1].removesuffix("<|im_end|>") for problem in problems}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_file_type_gives_the_same_problems(
    kind: str, config: Config, tmp_path: Path, byte_tokenizer: Any
) -> None:
    expected = load(config, byte_tokenizer)
    WRITERS[kind](tmp_path / f"rows.{kind}", SUMS)
    config.data.source = f"file:{tmp_path}/rows.{kind}"
    assert load(config, byte_tokenizer) == expected
    assert len(expected.train) == 20
    assert len(expected.heldout) == 10
    assert texts(expected.train) | texts(expected.heldout) == {row["problem"] for row in SUMS}
    assert not texts(expected.train) & texts(expected.heldout)
    assert expected.dropped == {}


def test_prompt_is_the_chat_template_around_the_template(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [{"question": "Find {x} in \\frac{x}{2}=1", "final_answer": 2}])
    config.data.template = "{problem} Box it: \\boxed{}."
    config.data.system = "Be brief."
    config.eval.problems, config.learner.problems_per_update = 0, 1
    (problem,) = load(config, byte_tokenizer).train
    assert problem.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nFind {x} in \\frac{x}{2}=1 Box it: \\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert problem.gold == "2"
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Find {x} in \\frac{x}{2}=1 Box it: \\boxed{}."},
    ]
    assert list(problem.prompt_ids) == byte_tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]


def test_the_order_of_rows_and_the_run_seed_do_not_matter(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    expected = load(config, byte_tokenizer)
    write_jsonl(tmp_path / "sums.jsonl", SUMS[::-1])
    config.run.seed = 5
    assert load(config, byte_tokenizer) == expected


def test_bad_rows_are_dropped_and_counted(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    bad: Rows = [
        {"problem": " What is 3 + 3?", "answer": "7"},
        {"problem": "What is 4 + 4?", "answer": "8"},
        {"problem": "", "answer": "8"},
        {"problem": "What is the empty set?", "answer": None},
        {"answer": "8"},
        {"problem": "What is open?", "answer": "}{"},
        {"problem": "What is half?", "answer": "it is {"},
        {"problem": "Long " * 100, "answer": "1"},
    ]
    good = [{"problem": "What is 1/4 + 1/4?", "answer": r"Add the numerators: $\boxed{\frac{1}{2}}$."}]
    write_jsonl(tmp_path / "sums.jsonl", [*SUMS, *bad, *good])
    config.rollout.max_prompt_tokens = 80
    problems = load(config, byte_tokenizer)
    assert problems.dropped == {DUPLICATE: 1, CONFLICT: 2, EMPTY: 3, BAD_GOLD: 2, TOO_LONG: 1}
    everything = problems.train + problems.heldout
    assert len(everything) == 30
    assert {p.gold for p in everything if "1/4" in p.prompt} == {r"\frac{1}{2}"}


def test_pattern_takes_its_group_and_drops_the_rest(config: Config, byte_tokenizer: Any) -> None:
    config.data.problem_pattern = r"What is ([12]\d* \+ \d+)\?"
    config.eval.problems = 2
    problems = load(config, byte_tokenizer)
    assert "12 + 12" in texts(problems.train + problems.heldout)
    assert problems.dropped == {NO_MATCH: 8}


def test_examples_come_before_the_problem_and_are_no_problems(config: Config, byte_tokenizer: Any) -> None:
    config.data.examples = [ExampleConfig("What is 3 + 3?", "6")]
    problems = load(config, byte_tokenizer)
    everything = problems.train + problems.heldout
    assert problems.dropped == {SHOWN: 1}
    shown = "<|im_start|>user\nWhat is 3 + 3?<|im_end|>\n<|im_start|>assistant\n6<|im_end|>\n<|im_start|>user\n"
    assert all(problem.prompt.startswith(shown) for problem in everything)


def test_size_takes_the_same_problems_first(config: Config, byte_tokenizer: Any) -> None:
    config.eval.problems = 0
    everything = load(config, byte_tokenizer).train
    config.data.size = 12
    assert load(config, byte_tokenizer).train == everything[:12]


def test_eval_source_is_kept_out_of_training(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    other = [{"problem": f"What is {i} - 1?", "answer": i - 1} for i in range(5)]
    write_jsonl(tmp_path / "eval.jsonl", [*SUMS[:3], *other])
    config.data.eval_source = f"file:{tmp_path / 'eval.jsonl'}"
    problems = load(config, byte_tokenizer)
    assert len(problems.heldout) == 8
    assert len(problems.train) == 27
    assert not texts(problems.train) & texts(problems.heldout)
    assert problems.dropped == {HELD_OUT: 3}


def test_generated_problems(byte_tokenizer: Any) -> None:
    config = Config()
    config.data.parameters = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
    config.data.problem_pattern = r": (.+) =$"
    config.data.size = 60
    config.data.eval_source = "reasoning_gym:chain_sum"
    config.eval.problems = 10
    problems = load(config, byte_tokenizer)
    assert problems == load(config, byte_tokenizer)
    assert len(problems.heldout) == 10
    assert len(problems.train) + problems.dropped.get(HELD_OUT, 0) > 50
    for problem in problems.train:
        (text,) = texts((problem,))
        assert eval(text) == int(problem.gold)


def refuse(config: Config, tokenizer: Any, *words: str) -> None:
    with pytest.raises(BadInput) as refused:
        load(config, tokenizer)
    message = str(refused.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_generator_is_refused_with_its_neighbours(config: Config, byte_tokenizer: Any) -> None:
    config.data.source = "reasoning_gym:chain_sun"
    refuse(config, byte_tokenizer, "data.source", "'chain_sun'", "chain_sum")


@pytest.mark.parametrize("parameters", [{"nope": 1}, {"min_terms": 0}, {"min_terms": "x"}, {"seed": 3}])
def test_wrong_generator_parameters_are_refused(
    parameters: dict[str, Any], config: Config, byte_tokenizer: Any
) -> None:
    config.data.source = "reasoning_gym:chain_sum"
    config.data.parameters = parameters
    refuse(config, byte_tokenizer, "data.parameters", str(parameters), "ChainSumConfig")


def test_hub_that_cannot_be_reached_is_refused_with_the_remedy(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    config.data.source = "hub:nobody/nothing:test"
    refuse(config, byte_tokenizer, "'nobody/nothing'", "'test'", "file:PATH", "huggingface.co/datasets/nobody/nothing")


def test_missing_file_is_refused(config: Config, byte_tokenizer: Any) -> None:
    config.data.source = "file:/nowhere/rows.jsonl"
    refuse(config, byte_tokenizer, "data.source", "/nowhere/rows.jsonl")


def test_unknown_file_type_is_refused(config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    config.data.source = f"file:{tmp_path}/rows.txt"
    refuse(config, byte_tokenizer, "rows.txt", ".jsonl, .json, .csv, .parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"problem": 1\n'),
        ("rows.jsonl", b"[1, 2]\n"),
        ("rows.jsonl", b"\xff\xfe"),
        ("rows.json", b'{"problem": "p", "answer": "1"}'),
        ("rows.parquet", b"no parquet"),
        ("rows.csv", b"problem,answer\n" + b"1" * 200_000 + b",1\n"),
    ],
)
def test_broken_file_is_refused(name: str, content: bytes, config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    config.data.source = f"file:{tmp_path / name}"
    refuse(config, byte_tokenizer, "data.source", name)


@pytest.mark.parametrize("setting", ["problem_field", "answer_field"])
def test_unknown_field_is_refused_with_the_fields_there_are(setting: str, config: Config, byte_tokenizer: Any) -> None:
    setattr(config.data, setting, "nope")
    refuse(config, byte_tokenizer, f"data.{setting}", "'nope'", "problem, answer")


def test_no_field_to_guess_is_refused(config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [{"text": "1 + 1", "answer": "2"}])
    refuse(config, byte_tokenizer, "problem|question|prompt", "text, answer")


def test_empty_file_is_refused(config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text("")
    refuse(config, byte_tokenizer, "data.problem_field", "empty")


def test_too_few_problems_are_refused(config: Config, byte_tokenizer: Any) -> None:
    config.eval.problems = 27
    refuse(config, byte_tokenizer, "3 training problems", "27 held-out", "learner.problems_per_update=4")


def test_eval_source_without_a_usable_problem_is_refused(config: Config, byte_tokenizer: Any, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "eval.jsonl", [{"problem": "p", "answer": "}{"}])
    config.data.eval_source = f"file:{tmp_path / 'eval.jsonl'}"
    refuse(config, byte_tokenizer, "data.eval_source", BAD_GOLD)


def test_tokenizer_without_chat_template_is_refused(config: Config, byte_tokenizer: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer.backend_tokenizer)
    refuse(config, bare, "model.path", "chat template")


PROBLEMS = tuple(Problem(str(i), "", (), "") for i in range(13))


@given(st.integers(0, 1000), st.integers(0, 50))
def test_every_epoch_is_a_permutation(seed: int, epoch: int) -> None:
    order = ProblemOrder(PROBLEMS, seed)
    start = epoch * len(PROBLEMS)
    ids = [order.problem(index).id for index in range(start, start + len(PROBLEMS))]
    assert sorted(ids) == sorted(problem.id for problem in PROBLEMS)
    again = ProblemOrder(PROBLEMS, seed)
    assert [again.problem(index).id for index in reversed(range(start, start + len(PROBLEMS)))] == ids[::-1]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def first(seed: int, epoch: int) -> tuple[str, ...]:
        order = ProblemOrder(PROBLEMS, seed)
        return tuple(order.problem(epoch * len(PROBLEMS) + i).id for i in range(len(PROBLEMS)))

    assert len({first(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_importing_problems_does_not_import_torch() -> None:
    subprocess.run(
        [sys.executable, "-c", "import sys, rewards.problems; assert 'torch' not in sys.modules"], check=True
    )
