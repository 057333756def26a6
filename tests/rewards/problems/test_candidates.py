"""What the warm start draws from: prompts, responses, and what is left out or refused."""

from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import ProblemSet
from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config, ExampleConfig
from microbudget_rl.conf.schema.evaluation import BenchmarkConfig
from microbudget_rl.conf.settings import changed
from microbudget_rl.rewards.problems.candidates import TRIED, load_with_candidates, response_of
from microbudget_rl.rewards.verify import verify
from microbudget_rl.rewards.weighted_sum import well_formed
from tests.json_lines import write_rows
from tests.rewards.problems.rows import SUMS, Loader, Rows, problem_row

SELF = {"warm_start.source": "self", "warm_start.few_shot": [ExampleConfig("1 * 2", "3"), ExampleConfig("2 + 2", "4")]}
SOLVED = {"warm_start.source": "file:solved.jsonl", "rollout.max_response_tokens": 100, "reward.format": 0.0}
GSM8K = "She sold 9 + 9 = <<9+9=18>>18 clips.\n#### 18"
OPEN_RS = r"Note that $x = 9$, so that $2x = \boxed{18}$."


def candidates(loader: Loader, settings: dict[str, Any], solved: Rows = ()) -> ProblemSet:
    if solved:
        write_rows(Path("solved.jsonl"), solved)
    return load_with_candidates(changed(loader.config, settings), loader.tokenizer)


def test_a_model_is_shown_examples_only_where_it_samples_for_itself(loader: Loader):
    first = loader.load().train[0]
    asked = first.prompt.split("\n")[1].removesuffix("<|im_end|>")
    problems = candidates(loader, {**SELF, "data.few_shot": [ExampleConfig("7 - 7", "0")]})
    assert [problem.id for problem in problems.candidates] == [problem.id for problem in problems.train]
    for trained, sampled in zip(problems.train, problems.candidates, strict=True):
        assert ("1 * 2" in trained.prompt, "1 * 2" in sampled.prompt) == (False, True)
        assert sampled.prompt.count("7 - 7") == trained.prompt.count("7 - 7") == 1
        assert list(sampled.prompt_ids) == loader.tokenizer(sampled.prompt)["input_ids"]
    assert problems.solutions == ()
    fewer = candidates(loader, {**SELF, "warm_start.few_shot": [ExampleConfig(asked, first.gold)]})
    assert first.id in {problem.id for problem in fewer.train}
    assert first.id not in {problem.id for problem in fewer.candidates}
    longest = max(len(problem.prompt_ids) for problem in loader.load().train)
    with pytest.raises(BadInput, match=rf"warm_start\.few_shot.*={longest} "):
        candidates(loader, {**SELF, "rollout.max_prompt_tokens": longest})


def test_solutions_are_responses_of_an_engine(loader: Loader):
    rows = [{**row, "solution": f"It is \\boxed{{{row['answer']}}}."} for row in SUMS]
    problems = candidates(loader, SOLVED, rows)
    heldout = {problem.prompt for problem in problems.heldout}
    assert {problem.prompt for problem in problems.candidates} == {problem.prompt for problem in problems.train}
    assert heldout
    for problem, solution in zip(problems.candidates, problems.solutions, strict=True):
        assert solution.text == f"It is \\boxed{{{problem.gold}}}."
        assert loader.tokenizer.decode(solution.token_ids) == f"{solution.text}<|im_end|>"
        assert (solution.finish_reason, len(solution.logprobs)) == ("stop", 0)
    exam = next(row for row in SUMS if row["problem"] in problems.train[0].prompt)
    write_rows(Path("exam.jsonl"), [exam])
    kept = {"eval.benchmarks": [BenchmarkConfig("file:exam.jsonl", name="one")], "data.contamination": "report_only"}
    fewer = candidates(loader, {**SOLVED, **kept}, rows)
    assert {each.id for each in problems.candidates} - {each.id for each in fewer.candidates} == {problems.train[0].id}


def test_of_a_large_source_only_so_many_as_may_be_needed_are_read(loader: Loader):
    rows = [{**row, "solution": "So."} for row in SUMS]
    problems = candidates(loader, {**SOLVED, "warm_start.demonstrations": 2}, rows)
    assert 0 < len(problems.candidates) <= 2 * TRIED < len(SUMS) - len(problems.heldout)


def test_unusable_solutions_are_left_out(loader: Loader):
    texts = ["", "So " * 40, "Fine.<|im_end|>", "Fine.", None]
    rows = [{"problem": f"What is {i} less?", "answer": "1", "solution": text} for i, text in enumerate(texts)]
    assert [each.text for each in candidates(loader, SOLVED, rows).solutions] == ["Fine.\n\\boxed{1}"]


@pytest.mark.parametrize(
    ("solved", "said"),
    [
        ([problem_row("What?", "18")], "warm_start.solution_field: .*'solution'.*problem, answer"),
        ([{"problem": "What?", "answer": "18", "solution": ""}] * 3, "warm_start.source: .*no usable problem"),
        ([], "warm_start.source: .*solved.jsonl"),
    ],
)
def test_a_source_without_solutions_is_refused(solved: Rows, said: str, loader: Loader):
    with pytest.raises(BadInput, match=said):
        candidates(loader, SOLVED, solved)


def test_own_columns_count_where_the_source_has_them(loader: Loader):
    own = {"data.problem_field": "problem", "data.problem_pattern": r"What is (\d+ \+ \d+)\?"}
    solved: Rows = [{"question": "Nine and nine?", "answer": GSM8K}]
    problems = candidates(loader, {**SOLVED, **own, "eval.problems": 2}, solved)
    assert [(each.gold, text.text) for each, text in zip(problems.candidates, problems.solutions, strict=True)] == [
        ("18", GSM8K.replace("<<9+9=18>>", "").replace("#### 18", r"\boxed{18}"))
    ]


@pytest.mark.parametrize("preset", ["paper", "dapo"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("solution", [GSM8K, OPEN_RS, "#### First\nIt is 18."])
def test_what_is_learned_earns_the_reward(solution: str, after: bool, preset: str):
    config = changed(Config(), {"reward.format": table("rewards")[preset]["format"], "reward.after_thinking": after})
    for opened in (False, True):
        text = response_of(solution, "18", config, opened=opened)
        assert verify("18", text.rpartition("</think>")[2] if after else text).score == 1.0
        assert well_formed(text) == (preset != "dapo" or after or opened)
        assert text.startswith("<think>") == (well_formed(text) and not opened)
        assert text.count("18}") <= 2
    if "18}" in solution or "#### 18" in solution:
        assert r"\boxed{18}" in response_of(solution, "17", Config(), opened=False)  # it keeps its own answer


@pytest.mark.parametrize("solution", ["So \\boxed{3}, and 7.\n#### 7", "<think>\\boxed{7}</think> It is 7.\n#### 7"])
def test_a_box_that_is_not_the_answer_does_not_stand_for_it(solution: str):
    config = changed(Config(), {"reward.format": 0.0})
    assert response_of(solution, "7", config, opened=False).endswith("\n\\boxed{7}")
