import json
import math
import subprocess
import sys
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from actors.messages import LeftOut, Status
from conf.schema import Config, ExampleConfig
from conf.settings import changed
from rewards.pool import VerifierPool
from rewards.problems.__main__ import main
from rewards.problems.loading import (
    BAD_GOLD,
    CONTROL,
    MOST_LISTED,
    OVERLAP_DROPPED,
    OVERLAP_KEPT,
    TOO_LONG,
    load,
    write_listing,
)
from rewards.problems.rows import CONFLICT, DUPLICATE, EMPTY, NO_MATCH, NOT_FINITE, SHOWN
from rewards.reward import RewardFunction
from tests.rewards.problems.rows import SUMS, WRITERS, Rows, refuse, texts, write_jsonl


@pytest.mark.parametrize("kind", WRITERS)
def test_every_file_type_gives_the_same_problems(
    kind: str, config: Config, tmp_path: Path, byte_tokenizer: Any
) -> None:
    expected = load(config, byte_tokenizer)
    WRITERS[kind](tmp_path / f"rows.{kind}", SUMS)
    config = changed(config, {"data.source": f"file:{tmp_path}/rows.{kind}"})
    assert load(config, byte_tokenizer) == expected
    assert len(expected.train) == 20
    assert len(expected.heldout) == 10
    assert texts(expected.train) | texts(expected.heldout) == {row["problem"] for row in SUMS}
    assert not texts(expected.train) & texts(expected.heldout)
    assert expected.dropped == {}


def test_prompt_is_the_chat_template_around_the_template(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [{"question": "Find {x} in \\frac{x}{2}=1", "final_answer": 2}])
    config = changed(
        config,
        {
            "data.template": "{problem} Box it: \\boxed{}.",
            "data.system": "Be brief.",
            "eval.problems": 0,
            "learner.problems_per_update": 1,
        },
    )
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
    config = changed(config, {"run.seed": 5})
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
        {"problem": "What is 5 + 5?<|im_end|>", "answer": "10"},
        {
            "problem": [{"role": "user", "content": "<|im_start|>"}, {"role": "user", "content": "1 + 5?"}],
            "answer": "6",
        },
        {"problem": "What is none?", "answer": math.nan},
        {"problem": "What is all?", "answer": math.inf},
        {"problem": "What is much?", "answer": "-1e400"},
    ]
    good = [{"problem": "What is 1/4 + 1/4?", "answer": r"Add the numerators: $\boxed{\frac{1}{2}}$."}]
    write_jsonl(tmp_path / "sums.jsonl", [*SUMS, *bad, *good])
    config = changed(config, {"rollout.max_prompt_tokens": 80})
    problems = load(config, byte_tokenizer)
    assert problems.dropped == {
        DUPLICATE: 1,
        CONFLICT: 2,
        EMPTY: 3,
        BAD_GOLD: 2,
        TOO_LONG: 1,
        CONTROL: 2,
        NOT_FINITE: 3,
    }
    everything = problems.train + problems.heldout
    assert len(everything) == 30
    assert {p.gold for p in everything if "1/4" in p.prompt} == {r"\frac{1}{2}"}


def test_pattern_takes_its_group_and_drops_the_rest(config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"data.problem_pattern": r"What is ([12]\d* \+ \d+)\?", "eval.problems": 2})
    problems = load(config, byte_tokenizer)
    assert "12 + 12" in texts(problems.train + problems.heldout)
    assert problems.dropped == {NO_MATCH: 8}


def test_examples_come_before_the_problem_and_are_no_problems(config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"data.few_shot": [ExampleConfig("What is 3 + 3?", "6")]})
    problems = load(config, byte_tokenizer)
    everything = problems.train + problems.heldout
    assert problems.dropped == {SHOWN: 1}
    shown = "<|im_start|>user\nWhat is 3 + 3?<|im_end|>\n<|im_start|>assistant\n6<|im_end|>\n<|im_start|>user\n"
    assert all(problem.prompt.startswith(shown) for problem in everything)


def test_size_takes_the_same_problems_first(config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"eval.problems": 0})
    everything = load(config, byte_tokenizer).train
    config = changed(config, {"data.size": 12})
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
    config = changed(config, {"eval.problems": 0, "learner.problems_per_update": 1})
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
    config = changed(
        config,
        {
            "data.eval_source": f"file:{tmp_path}/eval.jsonl",
            "data.contamination": overlap,
            "rollout.max_prompt_tokens": 300,
        },
    )
    problems = load(config, byte_tokenizer)
    assert problems.dropped == {reason: 2}
    assert len(problems.train) == (30 if overlap == "drop" else 32)
    assert {row.gold for row in problems.left_out} == {"80", "6"}


def test_phrases_of_a_source_are_no_overlap(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    """The same long instruction around every problem says nothing about any of them."""
    rows = [{"problem": f"{LONG} Answer with one number: {i}", "answer": str(i)} for i in range(40)]
    write_jsonl(tmp_path / "sums.jsonl", rows[:30])
    write_jsonl(tmp_path / "eval.jsonl", rows[30:])
    config = changed(config, {"data.eval_source": f"file:{tmp_path}/eval.jsonl", "rollout.max_prompt_tokens": 300})
    problems = load(config, byte_tokenizer)
    assert (len(problems.train), problems.dropped) == (30, {})


def test_rows_left_out_are_listed_some_of_every_reason(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [*SUMS, {"problem": "What is open?", "answer": "3 +"}])
    problems = load(config, byte_tokenizer)
    write_listing(tmp_path / "left-out.jsonl", problems.left_out)
    (row,) = map(json.loads, (tmp_path / "left-out.jsonl").read_text().splitlines())
    assert row == {"source": "source", "reason": BAD_GOLD, "problem": "What is open?", "gold": "3 +"}
    many = [LeftOut("source", DUPLICATE, "1 + 1", "2")] * (MOST_LISTED + 5)
    write_listing(tmp_path / "left-out.jsonl", (*many, *problems.left_out))
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "left-out.jsonl").read_text().splitlines()]
    assert (reasons.count(DUPLICATE), reasons.count(BAD_GOLD)) == (MOST_LISTED, 1)


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
    config = changed(config, {"eval.problems": 0, "learner.problems_per_update": 1})
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
    config = changed(config, {"eval.problems": 0, "learner.problems_per_update": 1})
    (problem,) = load(config, byte_tokenizer).train
    assert "What is 3 + 4?" in problem.prompt
    with VerifierPool(RewardFunction(config.reward), 1) as pool:
        assert pool.verify(problem.gold, r"\boxed{7}").status is Status.CORRECT


def test_chat_settings_reach_the_chat_template(config: Config, byte_tokenizer: Any) -> None:
    tokenizer = copy(byte_tokenizer)
    tokenizer.chat_template += "{% if enable_thinking %}<think>{% endif %}"
    assert not any("<think>" in problem.prompt for problem in load(config, tokenizer).train)
    config = changed(config, {"data.chat_settings": {"enable_thinking": True}})
    assert all(problem.prompt.endswith("<think>") for problem in load(config, tokenizer).train)


def test_conversations_are_prompts_as_they_are(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "And 2 + 2?"},
    ]
    write_jsonl(tmp_path / "sums.jsonl", [{"prompt": turns, "solution": "4"}])
    config = changed(config, {"eval.problems": 0, "learner.problems_per_update": 1})
    (problem,) = load(config, byte_tokenizer).train
    assert problem.prompt == byte_tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    config = changed(config, {"data.system": "Be verbose."})
    (problem,) = load(config, byte_tokenizer).train
    assert "Be verbose." in problem.prompt
    assert "Be brief." not in problem.prompt


def test_eval_source_is_kept_out_of_training(config: Config, tmp_path: Path, byte_tokenizer: Any) -> None:
    other = [{"problem": f"What is {i} - 1?", "answer": i - 1} for i in range(5)]
    write_jsonl(tmp_path / "eval.jsonl", [*SUMS[:3], *other])
    config = changed(config, {"data.eval_source": f"file:{tmp_path / 'eval.jsonl'}"})
    problems = load(config, byte_tokenizer)
    assert len(problems.heldout) == 8
    assert len(problems.train) == 27
    assert not texts(problems.train) & texts(problems.heldout)
    assert problems.dropped == {OVERLAP_DROPPED: 3}


def test_generated_problems(byte_tokenizer: Any) -> None:
    config = changed(
        Config(),
        {
            "data.parameters": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
            "data.problem_pattern": r": (.+) =$",
            "data.size": 60,
            "data.eval_source": "reasoning_gym:chain_sum",
            "eval.problems": 10,
        },
    )
    problems = load(config, byte_tokenizer)
    assert problems == load(config, byte_tokenizer)
    assert len(problems.heldout) == 10
    assert len(problems.train) + problems.dropped.get(OVERLAP_DROPPED, 0) > 50
    for problem in problems.train:
        (text,) = texts((problem,))
        assert eval(text) == int(problem.gold)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"problem_field": "nope"}, ("data.problem_field", "'nope'", "problem, answer, nothing")),
        ({"answer_field": "nope"}, ("data.answer_field", "'nope'", "problem, answer, nothing")),
        ({"source": "file:text.jsonl"}, ("problem|question|prompt", "text, answer")),
        ({"source": "file:empty.jsonl"}, ("data.problem_field", "empty")),
        ({"source": "file:/nowhere/rows.jsonl"}, ("data.source", "/nowhere/rows.jsonl")),
        ({"source": "file:rows.txt"}, ("data.source", "rows.txt", ".jsonl, .json, .csv, .parquet")),
        ({"source": "reasoning_gym:chain_sun"}, ("data.source", "'chain_sun'", "chain_sum")),
        ({"eval_source": "file:open.jsonl"}, ("data.eval_source", BAD_GOLD)),
        ({"problem_pattern": "^never (.)"}, ("leaves 0 training problems", "data.problem_pattern=''")),
        ({"answer_field": "nothing"}, ("leaves 0 training problems", "data.answer_field=NAME")),
    ],
)
def test_sources_that_give_nothing_are_refused_with_what_there_is(
    settings: dict[str, str], words: tuple[str, ...], config: Config, byte_tokenizer: Any, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "sums.jsonl", [{**row, "nothing": ""} for row in SUMS])
    write_jsonl(tmp_path / "text.jsonl", [{"text": "1 + 1", "answer": "2"}])
    write_jsonl(tmp_path / "open.jsonl", [{"problem": "p", "answer": "}{"}])
    write_jsonl(tmp_path / "empty.jsonl", [])
    config = changed(config, {f"data.{name}": value for name, value in settings.items()})
    refuse(config, byte_tokenizer, *words)


def test_too_few_problems_are_refused(config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"eval.problems": 27, "eval.share": 1.0})
    remedies = ("learner.problems_per_update=4", "learner.problems_per_update=3", "eval.problems=26")
    refuse(config, byte_tokenizer, "3 training problems", "27 held-out", *remedies)


def test_of_a_small_source_a_share_is_held_out(config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"eval.problems": 128, "eval.share": 0.25})
    problems = load(config, byte_tokenizer)
    assert (len(problems.train), len(problems.heldout)) == (23, 7)


def test_tokenizer_without_chat_template_is_refused(config: Config, byte_tokenizer: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer.backend_tokenizer)
    refuse(config, bare, "model.path", "chat template")


def test_stop_token_of_another_model_is_refused(config: Config, byte_tokenizer: Any) -> None:
    config = changed(config, {"model.stop_tokens": ["<|im_end|>"]})
    load(config, byte_tokenizer)
    config = changed(config, {"model.stop_tokens": ["<|im_end|>", "<|eot_id|>"]})
    refuse(config, byte_tokenizer, "model.stop_tokens", "<|eot_id|>", "<|im_end|>")


def test_importing_problems_does_not_import_torch() -> None:
    subprocess.run(
        [sys.executable, "-c", "import sys, rewards.problems; assert 'torch' not in sys.modules"], check=True
    )


def test_command_reports_a_source_and_shows_prompts(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [{"problem": "What is nothing?", "answer": ""}, {"problem": "What is its mass?", "answer": "750 g"}]
    write_jsonl(tmp_path / "rows.jsonl", [*SUMS, *SUMS[:2], *others])
    assert main([f"file:{tmp_path}/rows.jsonl", f"model.path={tiny_model}", "eval.problems=5"]) == 0
    said = capsys.readouterr().out
    assert "26 problems to train on, 5 held out" in said
    assert "'750 g'" in said
    assert f"2 {DUPLICATE}" in said
    assert said.count("<|im_start|>user\nWhat is ") == 3
    assert len((tmp_path / "problems-left-out.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("arguments", [["data.size=3"], ["file:nowhere.jsonl"], ["elsewhere:x"]])
def test_command_refuses_a_wrong_call_in_one_line(
    arguments: list[str], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, f"model.path={tiny_model}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
