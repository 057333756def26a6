import math
import os
import re
import tempfile
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import HELD_OUT_SETS, FilteredRow, Status
from microbudget_rl.conf.catalogue import Benchmark
from microbudget_rl.conf.schema import ExampleConfig
from microbudget_rl.conf.schema.evaluation import BenchmarkConfig
from microbudget_rl.rewards.problems.__main__ import main
from microbudget_rl.rewards.problems.loading import (
    BAD_GOLD,
    CHOSE,
    CONTROL,
    MOST_LISTED,
    OVERLAP_FILTERED,
    OVERLAP_KEPT,
    OVERLAP_REPORTED,
    TOO_LONG,
    write_listing,
)
from microbudget_rl.rewards.problems.rows import CONFLICT, DUPLICATE, EMPTY, NO_MATCH, NOT_FINITE, SHOWN
from microbudget_rl.rewards.verify import verify
from tests.json_lines import read_rows, write_rows
from tests.rewards.problems.rows import ALL, LONG, SUMS, WRITERS, Loader, Rows, problem_row, texts


@pytest.mark.parametrize("kind", WRITERS)
def test_every_file_type_gives_the_same_problems(kind: str, loader: Loader):
    expected = loader.load()
    WRITERS[kind](file := Path(f"rows.{kind}"), SUMS)
    for mark in (b"", b"\xef\xbb\xbf" if kind != "parquet" else b""):  # of the byte order
        file.write_bytes(mark + file.read_bytes())
        assert loader.load({"data.source": f"file:{file}"}) == expected
    train, heldout = texts(expected.train), texts(expected.heldout)
    assert (len(train), len(heldout)) == (20, 10)
    assert train | heldout == {row["problem"] for row in SUMS}
    assert expected.filtered_counts == {}


def test_prompt_is_the_chat_template_around_the_template(loader: Loader):
    rows = [{"question": "Find {x} in \\frac{x}{2}=1", "final_answer": 2}]
    settings = {"data.template": "{problem} Box it: \\boxed{}.", "data.system": "Be brief."}
    (problem,) = loader.load({**ALL, **settings}, rows).train
    assert problem.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nFind {x} in \\frac{x}{2}=1 Box it: \\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(problem.prompt_ids) == loader.tokenizer(problem.prompt)["input_ids"]
    assert problem.gold == "2"


def test_order_of_rows_and_run_seed_change_nothing(loader: Loader):
    expected = loader.load()
    assert loader.load({"run.seed": 5}, SUMS[::-1]) == expected


def test_bad_rows_are_filtered_and_counted(loader: Loader):
    bad: Rows = [
        problem_row(" What is 3 + 3?", "7"),
        problem_row("What is 4 + 4?", "8"),
        problem_row("", "8"),
        problem_row("What is the empty set?", None),
        {"answer": "8"},
        problem_row("What is open?", "}{"),
        problem_row("What is half?", "it is {"),
        problem_row("Long " * 100, "1"),
        problem_row("What is 5 + 5?<|im_end|>", "10"),
        problem_row([{"role": "user", "content": text} for text in ("<|im_start|>", "1 + 5?")], "6"),
        problem_row("What is none?", math.nan),
        problem_row("What is all?", math.inf),
        problem_row("What is much?", "-1e400"),
        problem_row("What is missing?", "nan"),
        problem_row("What is each?", [1.0, math.inf]),
    ]
    good = problem_row("What is 1/4 + 1/4?", r"Add the numerators: $\boxed{\frac{1}{2}}$.")
    problems = loader.load({"rollout.max_prompt_tokens": 80}, [*SUMS, *bad, good])
    counts = {DUPLICATE: 1, CONFLICT: 2, EMPTY: 3, BAD_GOLD: 2, TOO_LONG: 1, CONTROL: 2, NOT_FINITE: 5}
    assert problems.filtered_counts == counts
    assert len(problems.train + problems.heldout) == 30
    assert [p.gold for p in problems.train + problems.heldout if "1/4" in p.prompt] == [r"\frac{1}{2}"]


def test_a_reward_that_weighs_no_answers_takes_any_reference_answer(loader: Loader):
    rows = [*SUMS, problem_row("Who is it?", '{"name": "Ann", "age": 7}')]
    assert loader.load(None, rows).filtered_counts == {BAD_GOLD: 1}
    problems = loader.load({"reward.accuracy": 0.0}, rows)
    assert problems.filtered_counts == {}
    assert '{"name": "Ann", "age": 7}' in {problem.gold for problem in problems.all}


def test_pattern_takes_its_group_and_filters_the_rest(loader: Loader):
    problems = loader.load({"data.problem_pattern": r"What is ([12]\d* \+ \d+)\?", "eval.problems": 2})
    assert "12 + 12" in texts(problems.train + problems.heldout)
    assert problems.filtered_counts == {NO_MATCH: 8}


def test_examples_precede_problems_and_are_none(loader: Loader):
    problems = loader.load({"data.few_shot": [ExampleConfig("What is 3 + 3?", "6")]})
    shown = "<|im_start|>user\nWhat is 3 + 3?<|im_end|>\n<|im_start|>assistant\n6<|im_end|>\n<|im_start|>user\n"
    assert problems.filtered_counts == {SHOWN: 1}
    assert all(problem.prompt.startswith(shown) for problem in problems.train + problems.heldout)


def test_copies_count_once_unless_their_golds_differ(loader: Loader):
    rows = [
        problem_row("What is $1/2$ of 1?", "0.5"),
        problem_row("what  is 1/2 of 1?", r"\frac{1}{2}"),
        problem_row("What is 1 - 3?", "-2"),
        problem_row("What is 1 + 3?", "4"),
        problem_row("What is -1 + 3?", "2"),
        problem_row("What is -1 + 3?", "-4"),
    ]
    problems = loader.load(ALL, rows)
    assert len(problems.train) == 3
    assert problems.filtered_counts == {DUPLICATE: 1, CONFLICT: 2}
    assert {(row.reason, row.gold) for row in problems.filtered} >= {(CONFLICT, "2"), (CONFLICT, "-4")}


EITHER_TREATMENT = pytest.mark.parametrize(
    ("treatment", "reason"), [("drop", OVERLAP_FILTERED), ("report_only", OVERLAP_KEPT)]
)
EVAL = {"data.eval_source": "file:eval.jsonl", "rollout.max_prompt_tokens": 300}


@EITHER_TREATMENT
def test_overlap_with_held_out_problems_is_filtered_or_reported(treatment: str, reason: str, loader: Loader):
    shown = [
        problem_row(LONG.format(120, 3), "40"),
        problem_row(r"What is $\left(3+5\right)$?", "8"),
    ]
    copies = [
        problem_row(f"{LONG.format(120, 3)} Round.", "40"),
        problem_row("what is (3 + 5)?", "8"),
    ]
    write_rows(Path("eval.jsonl"), shown)
    problems = loader.load({**EVAL, "data.contamination": treatment}, [*SUMS, *copies])
    assert problems.filtered_counts == {reason: 2}
    assert len(problems.train) == (30 if treatment == "drop" else 32)
    assert {row.gold for row in problems.filtered} == {"40", "8"}


@EITHER_TREATMENT
def test_training_problems_that_overlap_a_benchmark_are_not_trained_on(treatment: str, reason: str, loader: Loader):
    rows = [*SUMS, *(problem_row(LONG.format(120, hours), str(120 // hours)) for hours in (3, 4, 5))]
    settings = {"data.contamination": treatment, "rollout.max_prompt_tokens": 300, "validation.every": 1}
    before = loader.load(settings, rows)
    chose = [row for row in rows if any(row["problem"] in problem.prompt for problem in before.selection)]
    chose += [{**row, "problem": row["problem"].replace("What is", "Find")} for row in chose]
    write_rows(Path("exam.jsonl"), [*chose, *({**row, "problem": f"{row['problem']} Round."} for row in rows[30:])])
    after = loader.load(
        settings | {"eval.benchmarks": [BenchmarkConfig("file:exam.jsonl", n=3, limit=2, name="trains")]}
    )
    (exam,) = after.benchmarks
    assert (exam.name, exam.n, ["train" in problem.prompt for problem in exam.problems]) == ("trains", 3, [True, True])
    assert (after.heldout, after.selection) == (before.heldout, before.selection)
    trains = sum("train" in problem.prompt for problem in before.train)
    assert len(before.train) - len(after.train) == (trains if treatment == "drop" else 0)
    assert after.filtered_counts[reason] == before.filtered_counts.get(reason, 0) + trains
    assert after.filtered_counts[f"trains: {CHOSE}"] == len(chose)
    shared = [part for part, digest in after.digests.items() if before.digests.get(part) == digest]
    assert (shared[0], len(shared), [*after.digests][1]) == (HELD_OUT_SETS, 1 if treatment == "drop" else 2, "trains")


@pytest.mark.parametrize("source", ["file:missing.jsonl", "reasoning_gym:no"])
def test_a_benchmark_that_cannot_be_loaded_is_named(source: str, loader: Loader):
    loader.refuse(
        {"eval.benchmarks": [BenchmarkConfig("file:sums.jsonl", limit=1), BenchmarkConfig(source)]}, "benchmarks[1]"
    )


COMMUTED = [
    problem_row(text, str(one + two))
    for one in range(1, 10)
    for two in range(one + 1, 10)
    for text in (f"What is {one} + {two}?", f"What is {two} + {one}?")
]
"""36 sums, each in both orders."""


def test_filtered_rows_are_listed_for_every_reason(loader: Loader):
    filtered = loader.load(None, [*SUMS, problem_row("What is open?", "3 +")]).filtered
    many = [FilteredRow("source", DUPLICATE, "1 + 1", "2")] * (MOST_LISTED + 5)
    write_listing(Path("listing.jsonl"), (*many, *filtered))
    rows = read_rows(Path("listing.jsonl"))
    assert len(rows) == MOST_LISTED + 1
    assert rows[-1] == {"source": "source", "reason": BAD_GOLD, "problem": "What is open?", "gold": "3 +"}


@pytest.mark.parametrize(
    ("row", "gold"),
    [
        ({"problem": "3 + 4?", "solution": r"It is $\boxed{7}$.", "answer": "$7$", "level": "Easy"}, "7"),  # Open-RS
        ({"id": 60, "problem": "3 + 4?", "solution": "7", "answer": "007", "year": "2024"}, "7"),  # AIME
        ({"question": "3 + 4?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"}, "7"),  # GSM8K
        ({"question": "3 + 4?", "answer": "#### Sum\n3 + 4\n#### Answer\nIt is \\boxed{7}."}, "7"),  # headings
        ({"question": "3 + 4?", "answer": ["4", "5"]}, "4, 5"),
        ({"Question": "3 + 4?", "ANSWER": "7"}, "7"),
        ({"Problem": "another", "problem": "3 + 4?", "answer": "7", "Answer": "8"}, "7"),
    ],
)
def test_columns_and_answers_of_common_data_sets(row: dict[str, Any], gold: str, loader: Loader):
    (problem,) = loader.load(ALL, [row]).train
    assert "3 + 4?" in problem.prompt
    assert verify(problem.gold, rf"\boxed{{{gold}}}").status is Status.CORRECT


@pytest.mark.long
def test_chat_settings_reach_the_chat_template(loader: Loader):
    loader.tokenizer = copy(loader.tokenizer)
    loader.tokenizer.chat_template += "{% if enable_thinking %}<think>{% endif %}"
    for thinking in (False, True):
        problems = loader.load({"data.chat_settings": {"enable_thinking": thinking}}).train
        assert {problem.prompt.endswith("<think>") for problem in problems} == {thinking}


def test_conversations_become_prompts_as_they_are(loader: Loader):
    said = [("system", "Be brief."), ("user", "What is 1 + 1?"), ("assistant", "2"), ("user", "And 2 + 2?")]
    turns = [{"role": role, "content": content} for role, content in said]
    (problem,) = loader.load(ALL, [{"prompt": turns, "solution": "4"}]).train
    whole = loader.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert problem.prompt == whole
    (problem,) = loader.load({**ALL, "data.system": "Be verbose."}).train
    assert problem.prompt == whole.replace("brief", "verbose")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data.problem_field": "nope"}, ("data.problem_field", "'nope'", "problem, answer, nothing")),
        ({"data.answer_field": "nope"}, ("data.answer_field", "'nope'", "problem, answer, nothing")),
        ({"data.source": "file:text.jsonl"}, ("'question' or 'prompt'", "text, answer")),
        ({"data.source": "file:empty.jsonl"}, ("data.source", "no rows")),
        ({"data.source": "file:/nowhere/rows.jsonl"}, ("data.source", "/nowhere/rows.jsonl")),
        ({"data.source": "file:rows.txt"}, ("data.source", "rows.txt", ".jsonl, .json, .csv, .parquet")),
        ({"data.source": "reasoning_gym:chain_sun"}, ("data.source", "'chain_sun'", "chain_sum")),
        ({"data.eval_source": "file:open.jsonl"}, ("data.eval_source", BAD_GOLD)),
        ({"data.problem_pattern": "^never (.)"}, ("leaves 0 training problems", "problem_pattern")),
        ({"data.answer_field": "nothing"}, ("leaves 0 training problems", "answer_field")),
        (
            {"eval.problems": 27, "eval.share": 1.0},
            ("3 training", "27 held-out", "eval.share", "per_update=3"),
        ),
        ({"model.stop_tokens": ["<|im_end|>", "<|eot_id|>"]}, ("model.stop_tokens", "<|eot_id|>", "<|im_end|>")),
    ],
)
def test_refusals_name_the_setting_and_the_choices(settings: dict[str, Any], words: tuple[str, ...], loader: Loader):
    write_rows(Path("sums.jsonl"), [{**row, "nothing": ""} for row in SUMS])
    write_rows(Path("text.jsonl"), [{"text": "1 + 1", "answer": "2"}])
    write_rows(Path("open.jsonl"), [problem_row("p", "}{")])
    write_rows(Path("empty.jsonl"), [])
    loader.refuse(settings, *words)


@pytest.mark.parametrize(
    ("asked", "shares"),
    [((10, 5), (10, 5)), ((20, 10), (10, 5)), ((10, 20), (5, 10)), ((1000, 1), (14, 1)), ((1, 1000), (1, 14))],
)
@pytest.mark.parametrize("source", ["", "file:eval.jsonl"])
def test_problems_that_choose_are_others_than_those_that_report(
    source: str, asked: tuple[int, int], shares: tuple[int, int], loader: Loader
):
    """Where 15 are too few for both, each gets its share, at least one. `validation.problems` alone does nothing."""
    write_rows(Path("eval.jsonl"), [problem_row(f"What is {n} + 1000?", str(n + 1000)) for n in range(15)])
    settings = {"eval.problems": asked[0], "validation.problems": asked[1], "data.eval_source": source}
    without = loader.load(settings)
    problems = loader.load({**settings, "validation.every": 1})
    assert without.selection == ()
    assert (len(problems.heldout), len(problems.selection)) == shares
    assert problems.heldout == without.heldout[: shares[0]]
    ids = [problem.id for problem in problems.all]
    assert len(ids) == len(set(ids))
    assert problems.digests != without.digests


@EITHER_TREATMENT
@pytest.mark.parametrize("source", ["", "file:eval.jsonl"])
def test_near_duplicates_are_on_one_side(source: str, treatment: str, reason: str, loader: Loader):
    write_rows(Path("eval.jsonl"), COMMUTED)
    settings = {"eval.problems": 20, "validation.every": 1, "validation.problems": 12, "data.eval_source": source}
    problems = loader.load({**settings, "data.contamination": treatment}, SUMS if source else COMMUTED)
    train, heldout, selection = (
        {frozenset(re.findall(r"\d", each.prompt)) for each in side}
        for side in (problems.train, problems.heldout, problems.selection)
    )
    assert (len(problems.heldout), len(problems.selection)) == (20, 12)
    assert not heldout & selection
    assert (OVERLAP_REPORTED in problems.filtered_counts) == bool(source)
    if not source:
        assert problems.filtered_counts[reason] > 10
        assert bool(train & (heldout | selection)) == (treatment == "report_only")


def test_one_held_out_problem_cannot_both_choose_and_report(loader: Loader):
    write_rows(Path("eval.jsonl"), SUMS[:1])
    settings = {"data.eval_source": "file:eval.jsonl", "validation.every": 5}
    loader.refuse(settings, "validation.every=5", "eval_source", "validation.every=0")
    loader.load({"data.eval_source": "file:eval.jsonl", "validation.every": 0})
    write_rows(Path("eval.jsonl"), COMMUTED[:2])
    loader.refuse({**settings, "eval.problems": 1}, "validation.every=5", "2 problems", "near duplicates")
    loader.refuse({"validation.every": 5, "eval.share": 0.01}, "validation.every=5", "source holds out 0")


LOOP = "{% for i in range(99999) %}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("template", "said"),
    [
        (f"{LOOP * 3}{{% endfor %}}{{% endfor %}}{{% endfor %}}", "does not end within"),
        ("{{ 'x' * 99999999999 }}", "does not end within"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("Hello", "omits the problem"),
        (None, "no chat template"),
    ],
)
def test_foreign_template_is_tried_in_a_worker_that_is_killed(
    template: str | None, said: str, loader: Loader, monkeypatch: pytest.MonkeyPatch
):
    """Not in a fork of this process, in which another thread may start Ray and hold locks."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    loader.tokenizer = copy(loader.tokenizer)
    loader.tokenizer.chat_template = template
    loader.refuse({}, "model.path", said)


def test_preview_reports_a_source_and_shows_prompts(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [problem_row("What is nothing?", ""), problem_row("What is its mass?", "750 g")]
    write_rows(Path("rows.jsonl"), [*SUMS, *SUMS[:2], *others])
    assert main(["file:rows.jsonl", f"model.path={tiny_model}", "eval.problems=5"]) == 0
    said = capsys.readouterr().out
    words = ("26 problems to train on, 5 held out", "'750 g'", f"2 {DUPLICATE}")
    assert [word for word in words if word not in said] == []
    assert said.count("<|im_start|>user\nWhat is ") == 3
    (listing,) = re.findall(r"listed in (\S+)", said)
    assert len(read_rows(Path(listing))) == 3


def test_rows_of_a_source_are_saved_with_all_columns_into_a_new_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    write_rows(Path("rows.jsonl"), rows := [{"question": f"{n} + 1?", "answer": n + 1, "level": [n]} for n in range(3)])
    monkeypatch.setattr(
        "microbudget_rl.rewards.problems.__main__.benchmarks", lambda: {"aime24": Benchmark("", "file:rows.jsonl")}
    )
    assert main(["aime24", "save=kept.jsonl"]) == 0
    assert read_rows(Path("kept.jsonl")) == rows
    assert "file:kept.jsonl" in capsys.readouterr().out
    for taken in ("kept.jsonl", "kept.csv", "nowhere/kept.jsonl"):
        assert main(["file:rows.jsonl", f"save={taken}"]) == 2
        assert f"save={taken}" in capsys.readouterr().err
