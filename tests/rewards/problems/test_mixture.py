import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import ProblemSet
from microbudget_rl.conf.schema import Config, CustomRewardConfig, ExampleConfig
from microbudget_rl.conf.schema.data import SourceConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.plan.plan import Problems, count_problems
from microbudget_rl.launch.session.preparation import problem_counts
from microbudget_rl.rewards.problems.__main__ import main
from microbudget_rl.rewards.problems.loading import OVERLAP_FILTERED
from microbudget_rl.rewards.problems.rows import CONFLICT, DUPLICATE, EMPTY
from tests.json_lines import write_rows
from tests.rewards.problems.rows import LONG, SUMS, Loader, Rows, problem_row

pytestmark = pytest.mark.long

PRODUCTS: Rows = [{"text": f"<What is {i} times {i}?>", "result": str(i * i)} for i in range(100, 200)]


def mix(sums: Rows = SUMS, products: Rows = PRODUCTS, weight: float = 3.0, **own: Any) -> dict[str, Any]:
    """Settings of a mixture of sums and products, each in a file with columns of its own."""
    write_rows(Path("sums.jsonl"), sums)
    write_rows(Path("products.jsonl"), products)
    columns = {"problem_field": "text", "answer_field": "result", "problem_pattern": "<(.*)>"}
    sources = [SourceConfig("file:sums.jsonl"), SourceConfig("file:products.jsonl", weight, "prod", **columns, **own)]
    return {"data.source": "", "data.mixture": sources}


def sides(problems: ProblemSet) -> list[Counter[str]]:
    return [Counter(one.source for one in side) for side in (problems.train, problems.heldout, problems.selection)]


def test_each_source_is_read_and_shown_by_its_own_settings(loader: Loader):
    own = {"template": "Compute: {problem}", "system": "Be brief.", "few_shot": [ExampleConfig("2 times 2?", "4")]}
    functions = {"reward.custom": [CustomRewardConfig("posixpath:join")]}
    named = [{**row, "data_source": "the row's own"} for row in PRODUCTS]
    problems = loader.load({**mix(products=named, **own), **functions, "data.template": "{problem} Box it."})
    for one in problems.all:
        assert json.loads(one.columns)["data_source"] == one.source
        assert ("Compute: What is 1" in one.prompt) == (one.source == "prod") == ("Be brief." in one.prompt)
        assert one.prompt.endswith("Box it.<|im_end|>\n<|im_start|>assistant\n") == (one.source == "sums")
    assert {one.prompt.count("<|im_start|>user") for one in problems.train if one.source == "prod"} == {2}


def test_held_out_are_weights_but_at_most_the_share_of_each(loader: Loader):
    validated = {"validation.every": 5, "validation.problems": 8, "eval.problems": 8}
    problems = loader.load({**mix(), **validated})
    assert sides(problems) == [{"sums": 26, "prod": 88}, {"sums": 2, "prod": 6}, {"sums": 2, "prod": 6}]
    problems = loader.load({**mix(weight=1 / 9), "eval.problems": 40, "eval.share": 0.5})
    assert sides(problems)[:2] == [{"sums": 15, "prod": 75}, {"sums": 15, "prod": 25}]


def test_a_size_is_each_sources_and_changes_nothing_held_out(loader: Loader):
    whole, cut = loader.load(mix()), loader.load({**mix(size=7), "data.size": 11})
    assert sides(cut)[0] == {"sums": 11, "prod": 7}
    assert cut.heldout == whole.heldout


def test_one_source_is_as_without_a_mixture(loader: Loader):
    alone, given = loader.load({}, SUMS), {"data.source": "", "data.mixture": [SourceConfig("file:sums.jsonl")]}
    mixed = loader.load(given)
    assert mixed.digests == alone.digests
    assert sides(mixed)[0] == {"sums": 20}


def test_copies_across_sources_count_once_in_the_first(loader: Loader):
    copies = [{"text": "<What is 3 + 3?>", "result": "6"}, {"text": "<what is 4 + 4?>", "result": "9"}]
    problems = loader.load(mix(products=[*PRODUCTS, *copies, {"text": "", "result": ""}]))
    assert problems.filtered_counts == {DUPLICATE: 1, CONFLICT: 2, EMPTY: 1}
    assert {row.source for row in problems.filtered if row.reason in (DUPLICATE, EMPTY)} == {"mixture.prod"}
    assert {one.source for one in problems.all if "3 + 3" in one.prompt} == {"sums"}


def test_near_duplicates_across_sources_stay_on_one_side(loader: Loader):
    trains = [problem_row(LONG.format(60 * i, i), "60") for i in range(2, 30)]
    twins = [{"text": f"<{LONG.format(60 * i, i)} Say it.>", "result": "60"} for i in range(2, 30)]
    problems = loader.load({**mix(trains, twins), "rollout.max_prompt_tokens": 400})
    assert sides(problems)[1] == {"sums": 2, "prod": 8}
    numbers = [{re.findall(r"\d+", one.prompt)[0] for one in side} for side in (problems.train, problems.heldout)]
    assert problems.filtered_counts[OVERLAP_FILTERED] > 0
    assert not numbers[0] & numbers[1]


def test_a_source_without_a_problem_left_is_refused(loader: Loader):
    loader.refuse(mix(products=[{"text": "<What is 3 + 3?>", "result": "6"}]), "data.mixture", "'prod'", DUPLICATE)
    few = {**mix(products=PRODUCTS[:8]), "learner.problems_per_update": 8, "eval.problems": 4}
    loader.refuse(few, "data.mixture", "5 problems of 'prod'", "the 6 of an update", "eval.problems or eval.share")
    loader.load({**few, "data.mixture": mix(products=PRODUCTS[:8], weight=1.5)["data.mixture"]})
    wrong = {**mix(products=[{"text": "<1 + 1>", "answer": "2"}])}
    loader.refuse(wrong, "data.mixture[1].answer_field: data.mixture[1].source has no column 'result'")
    loader.refuse({**mix(), "learner.problems_per_update": 500}, "data.mixture", "3 × file:products.jsonl", "120")


def test_preview_plan_and_start_count_each_source(
    config: Config, loader: Loader, tiny_model: Path, capsys: pytest.CaptureFixture[str]
):
    mixed = changed(config, mix())
    assert count_problems(mixed) == Problems(120, 10, 0, epoch=112)
    assert "120 to train on (28 sums, 92 prod), 10 held out" in problem_counts(loader.load(mix()), mixed)
    products = "{source: file:products.jsonl, problem_field: text, answer_field: result, weight: 3}"
    mixture = f"data.mixture=[{{source: file:sums.jsonl}}, {products}]"
    assert main([mixture, f"model.path={tiny_model}", "eval.problems=8"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"sums: 28 to train on, 2 held out; prompts of \d+ tokens", said)
    assert main(["file:sums.jsonl", mixture]) == main(["eval.problems=8"]) == 2
