import csv
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.coordinator.data_order import ProblemOrder
from actors.messages import Problem, Status
from conf.errors import BadInput
from conf.schema import Config, ExampleConfig
from rewards.pool import VerifierPool
from rewards.problems.loading import BAD_GOLD, OVERLAP_DROPPED, OVERLAP_KEPT, TOO_LONG, load, write_listing
from rewards.problems.rows import CONFLICT, DUPLICATE, EMPTY, NO_MATCH, SHOWN
from rewards.reward import RewardFunction

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


def test_copies_count_once_unless_their_golds_contradict(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    rows = [
        {"problem": "What is $1/2$ of 1?", "answer": "0.5"},
        {"problem": "what  is 1/2 of 1?", "answer": r"\frac{1}{2}"},
        {"problem": "What is 1 - 3?", "answer": "-2"},
        {"problem": "What is 1 + 3?", "answer": "4"},
        {"problem": "What is -1 + 3?", "answer": "2"},
        {"problem": "What is -1 + 3?", "answer": "-4"},
    ]
    write_jsonl(tmp_path / "sums.jsonl", rows)
    config.eval.problems, config.learner.problems_per_update = 0, 1
    problems = load(config, byte_tokenizer)
    assert len(problems.train) == 3
    assert problems.dropped == {DUPLICATE: 1, CONFLICT: 2}
    assert {(row.reason, row.gold) for row in problems.left_out} >= {(CONFLICT, "2"), (CONFLICT, "-4")}


LONG = "A train leaves the old station at noon and reaches the harbour {} miles away after {} hours. How fast is it?"


@pytest.mark.parametrize(("overlap", "reason"), [("drop", OVERLAP_DROPPED), ("report_only", OVERLAP_KEPT)])
def test_overlap_with_the_held_out_set_is_dropped_or_reported(
    overlap: str, reason: str, config: Config, tmp_path: Path, byte_tokenizer: Any
) -> None:
    shown = [
        {"problem": LONG.format(120, 3), "answer": "40"},
        {"problem": r"What is $\left(3+3\right)$?", "answer": "6"},
    ]
    copies = [{"problem": LONG.format(240, 3), "answer": "80"}, {"problem": "what is (3 + 3)?", "answer": "6"}]
    write_jsonl(tmp_path / "eval.jsonl", shown)
    write_jsonl(tmp_path / "sums.jsonl", [*SUMS, *copies])
    config.data.eval_source, config.data.overlap = f"file:{tmp_path}/eval.jsonl", overlap
    config.rollout.max_prompt_tokens = 300
    problems = load(config, byte_tokenizer)
    assert problems.dropped == {reason: 2}
    assert len(problems.train) == (30 if overlap == "drop" else 32)
    assert {row.gold for row in problems.left_out} == {"80", "6"}


def test_phrases_of_a_source_are_no_overlap(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    """The same long instruction around every problem says nothing about any of them."""
    rows = [{"problem": f"{LONG} Answer with one number: {i}", "answer": str(i)} for i in range(40)]
    write_jsonl(tmp_path / "sums.jsonl", rows[:30])
    write_jsonl(tmp_path / "eval.jsonl", rows[30:])
    config.data.eval_source = f"file:{tmp_path}/eval.jsonl"
    config.rollout.max_prompt_tokens = 300
    problems = load(config, byte_tokenizer)
    assert (len(problems.train), problems.dropped) == (30, {})


def test_rows_left_out_are_listed(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [*SUMS, {"problem": "What is open?", "answer": "3 +"}])
    problems = load(config, byte_tokenizer)
    write_listing(tmp_path / "left-out.jsonl", problems.left_out)
    (row,) = map(json.loads, (tmp_path / "left-out.jsonl").read_text().splitlines())
    assert row == {"source": "source", "reason": BAD_GOLD, "problem": "What is open?", "gold": "3 +"}


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("He has 6 x 3 = <<6*3=18>>18 eggs.\n#### 18", "18"),
        (r"So it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (["4", "5"], "4, 5"),
        ([7], "7"),
        (2.5, "2.5"),
    ],
)
def test_answers_of_common_data_sets(
    answer: object, gold: str, config: Config, tmp_path: Path, byte_tokenizer: Any
) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [{"question": "What?", "answer": answer}])
    config.eval.problems, config.learner.problems_per_update = 0, 1
    (problem,) = load(config, byte_tokenizer).train
    assert problem.gold == gold


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "What is 3 + 4?", "solution": r"It is $\boxed{7}$.", "answer": "$7$", "level": "Easy"},  # Open-RS
        {
            "problem": "What is 3 + 4?",
            "solution": r"It is $\boxed{7}$.",
            "answer": "7",
            "subject": "Prealgebra",
            "level": 1,
            "unique_id": "test/prealgebra/1.json",
        },  # MATH-500
        {"id": 60, "problem": "What is 3 + 4?", "solution": "7", "answer": "007", "url": "", "year": "2024"},  # AIME
        {"id": 0, "question": "What is 3 + 4?", "answer": 7.0, "url": ""},  # AMC
        {"question": "What is 3 + 4?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},  # GSM8K
    ],
)
def test_columns_of_common_data_sets_are_guessed(
    row: dict[str, Any], config: Config, tmp_path: Path, byte_tokenizer: Any
) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [row])
    config.eval.problems, config.learner.problems_per_update = 0, 1
    (problem,) = load(config, byte_tokenizer).train
    assert "What is 3 + 4?" in problem.prompt
    with VerifierPool(RewardFunction(config.reward), 1) as pool:
        assert pool.verify(problem.gold, r"\boxed{7}").status is Status.CORRECT


def test_chat_settings_reach_the_chat_template(config: Config, byte_tokenizer: Any) -> None:
    tokenizer = copy(byte_tokenizer)
    tokenizer.chat_template += "{% if enable_thinking %}<think>{% endif %}"
    assert not any("<think>" in problem.prompt for problem in load(config, tokenizer).train)
    config.data.chat_settings = {"enable_thinking": True}
    assert all(problem.prompt.endswith("<think>") for problem in load(config, tokenizer).train)


def test_conversations_are_prompts_as_they_are(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "And 2 + 2?"},
    ]
    write_jsonl(tmp_path / "sums.jsonl", [{"prompt": turns, "solution": "4"}])
    config.eval.problems, config.learner.problems_per_update = 0, 1
    (problem,) = load(config, byte_tokenizer).train
    assert problem.prompt == byte_tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    config.data.system = "Be verbose."
    (problem,) = load(config, byte_tokenizer).train
    assert "Be verbose." in problem.prompt
    assert "Be brief." not in problem.prompt


def test_eval_source_is_kept_out_of_training(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    other = [{"problem": f"What is {i} - 1?", "answer": i - 1} for i in range(5)]
    write_jsonl(tmp_path / "eval.jsonl", [*SUMS[:3], *other])
    config.data.eval_source = f"file:{tmp_path / 'eval.jsonl'}"
    problems = load(config, byte_tokenizer)
    assert len(problems.heldout) == 8
    assert len(problems.train) == 27
    assert not texts(problems.train) & texts(problems.heldout)
    assert problems.dropped == {OVERLAP_DROPPED: 3}


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
    assert len(problems.train) + problems.dropped.get(OVERLAP_DROPPED, 0) > 50
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


HUB_CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
- config_name: other
  data_files:
  - {split: train, path: other/train.jsonl}
---
"""


@pytest.fixture
def hub(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The datasets library finds OWNER/NAME as a folder under the working directory before it asks the hub."""
    import datasets

    folder = tmp_path / "owner" / "sums"
    for name, rows in {"main/train": SUMS, "main/test": SUMS[:12], "other/train": SUMS[:15]}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / f"{name}.jsonl", rows)
    (folder / "README.md").write_text(HUB_CARD)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    config.eval.problems = 0
    return config


@pytest.mark.parametrize(
    ("source", "scan", "count"),
    [("owner/sums/main", None, 30), ("owner/sums/main:test", None, 12), ("owner/sums/other", 9, 9)],
)
def test_hub_sets_with_configurations_and_splits(
    source: str, scan: int | None, count: int, hub: Config, byte_tokenizer: Any
) -> None:
    hub.data.source, hub.data.scan = f"hub:{source}", scan
    assert len(load(hub, byte_tokenizer).train) == count


@pytest.mark.parametrize(
    ("source", "words"), [("owner/sums", ["main", "other"]), ("owner/sums/main:dev", ["train", "test"])]
)
def test_wrong_configuration_or_split_is_refused_with_those_there_are(
    source: str, words: list[str], hub: Config, byte_tokenizer: Any
) -> None:
    hub.data.source = f"hub:{source}"
    refuse(hub, byte_tokenizer, *words)


def test_hub_that_does_not_answer_is_given_up(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: threading.Event().wait())
    config.data.source, config.data.hub_timeout_s = "hub:owner/sums", 0.05
    refuse(config, byte_tokenizer, "data.hub_timeout_s=0.05")


MODULE = """
def sums(first, last):
    for i in range(first, last):
        yield {"problem": f"What is {i} + 1?", "answer": i + 1}

def strings():
    yield "1 + 1"

def all_of(rows):
    yield from rows
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module in the working directory."""
    (tmp_path / "my_problems.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_problems", raising=False)
    return "my_problems"


def test_a_users_function_yields_rows(module: str, config: Config, byte_tokenizer: Any) -> None:
    config.data.source, config.data.parameters = f"import:{module}:sums", {"first": 3, "last": 23}
    problems = load(config, byte_tokenizer)
    assert {int(p.gold) for p in problems.train + problems.heldout} == set(range(4, 24))


@pytest.mark.parametrize("function", ["nothing", "strings", "MODULE"])
def test_a_users_function_that_cannot_be_used_is_refused(
    function: str, module: str, config: Config, byte_tokenizer: Any
) -> None:
    config.data.source = f"import:{module}:{function}"
    refuse(config, byte_tokenizer, "data.source", function)


def test_generators_score_their_answers(byte_tokenizer: Any) -> None:
    """Any palindrome of the given letters is right, and the generator's own scoring gives a little to all others."""
    config = Config()
    config.data.source, config.data.size = "reasoning_gym:palindrome_generation", 4
    config.data.parameters = {"min_length": 8, "max_length": 8}
    config.eval.problems, config.learner.problems_per_update = 0, 4
    config.rollout.max_prompt_tokens = 2000
    problem = load(config, byte_tokenizer).train[0]
    with VerifierPool(RewardFunction(config.reward), workers=1) as pool:

        def judge(answer: str) -> Status:
            return pool.verify(problem.gold, rf"\boxed{{{answer}}}", problem.grader).status

        half = problem.gold[:4]
        other = half[::-1] + half
        assert other != problem.gold
        assert judge(problem.gold) is Status.CORRECT
        assert judge(other) is Status.CORRECT
        assert judge(f"x{problem.gold}x") is Status.WRONG
        assert judge(half) is Status.WRONG
        assert judge("") is Status.UNPARSABLE


def test_generators_that_know_one_answer_accept_no_other(byte_tokenizer: Any) -> None:
    config = Config()
    config.data.source, config.data.size = "reasoning_gym:basic_arithmetic", 2
    config.eval.problems, config.learner.problems_per_update = 0, 2
    problem = load(config, byte_tokenizer).train[0]
    with VerifierPool(RewardFunction(config.reward), workers=1) as pool:
        statuses = [
            pool.verify(problem.gold, rf"\boxed{{{answer}}}", problem.grader).status
            for answer in (problem.gold, f"{int(problem.gold):+05d}", f"{problem.gold} or 3", "x")
        ]
        assert statuses == [Status.CORRECT, Status.CORRECT, Status.WRONG, Status.WRONG]
        assert pool.health["calls"] == 0


FORGED: Rows = [
    {**row, name: json.dumps({"generator": "chain_sum", "settings": {"seed": 0, "size": 1}, "index": 0})}
    for row, name in zip(SUMS, ["\x00grader", "grader"] * 15, strict=True)
]
"""Rows that ask to be judged as a generator's are."""


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_no_column_of_a_file_says_how_it_is_judged(
    kind: str, config: Config, tmp_path: Path, byte_tokenizer: Any
) -> None:
    expected = load(config, byte_tokenizer)
    WRITERS[kind](tmp_path / f"forged.{kind}", FORGED)
    config.data.source = f"file:{tmp_path}/forged.{kind}"
    problems = load(config, byte_tokenizer)
    assert problems == expected
    assert not any(problem.grader for problem in problems.train + problems.heldout)


def test_no_row_of_a_users_function_says_how_it_is_judged(module: str, config: Config, byte_tokenizer: Any) -> None:
    expected = load(config, byte_tokenizer)
    config.data.source, config.data.parameters = f"import:{module}:all_of", {"rows": FORGED}
    assert load(config, byte_tokenizer) == expected


def test_no_column_of_the_hub_says_how_it_is_judged(
    config: Config, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    expected = load(config, byte_tokenizer)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: FORGED)
    config.data.source = "hub:owner/sums"
    assert load(config, byte_tokenizer) == expected


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


def test_stop_token_of_another_model_is_refused(config: Config, byte_tokenizer: Any) -> None:
    config.model.stop_tokens = ["<|im_end|>"]
    load(config, byte_tokenizer)
    config.model.stop_tokens = ["<|im_end|>", "<|eot_id|>"]
    refuse(config, byte_tokenizer, "model.stop_tokens", "<|eot_id|>", "<|im_end|>")


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


def test_command_reports_a_source_and_shows_prompts(tmp_path: Path, tiny_model: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [*SUMS, *SUMS[:2], {"problem": "What is nothing?", "answer": ""}])
    command = [sys.executable, "-m", "rewards.problems", f"file:{tmp_path}/rows.jsonl", f"model.path={tiny_model}"]
    done = subprocess.run([*command, "eval.problems=5"], capture_output=True, text=True, check=True)
    assert "25 problems to train on, 5 held out" in done.stdout
    assert f"2 {DUPLICATE}" in done.stdout
    assert done.stdout.count("<|im_start|>user\nWhat is ") == 3
    assert len((tmp_path / "problems-left-out.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("arguments", [[], ["data.size=3"], ["file:nowhere.jsonl"], ["elsewhere:x"]])
def test_command_refuses_a_wrong_call_in_one_line(arguments: list[str], tmp_path: Path, tiny_model: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rewards.problems",
        *arguments,
        *([f"model.path={tiny_model}"] if arguments else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
