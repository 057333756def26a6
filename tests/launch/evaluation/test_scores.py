from typing import Any

from launch.evaluation.scores import comparison, scores, votes


def row(status: str, extracted: str | None = None, **more: Any) -> dict[str, Any]:
    return {"status": status, "extracted": extracted, "tokens": 10, "finish_reason": "stop", "format": 1.0, **more}


RIGHT, WRONG = row("correct", "7"), row("wrong", "8", tokens=30, finish_reason="length", format=0.0)


def test_scores_of_a_policy() -> None:
    found = scores([[RIGHT, WRONG], [WRONG, WRONG]])
    assert (found["n"], found["mean_length"], found["truncated"], found["format"]) == (2, 25.0, 0.75, 0.25)
    assert found["pass@1"]["value"] == 0.25
    assert found["pass@2"]["value"] == 0.5
    assert found["maj@n"]["value"] == 0.25
    low, high = found["pass@1"]["ci95"]
    assert low <= 0.25 <= high
    assert not {"pass@8", "pass@16"} & found.keys()


def test_answers_that_hang_the_grader_are_not_solved_and_counted() -> None:
    found = scores([[RIGHT, row("timeout"), row("crash"), WRONG]])
    assert (found["unjudged"], found["pass@1"]["value"]) == (0.5, 0.25)


def test_pass_at_8_and_16_and_n() -> None:
    assert [name for name in scores([[RIGHT] * 20]) if "@" in name] == [
        "pass@1",
        "pass@8",
        "pass@16",
        "pass@20",
        "maj@n",
    ]


def test_comparison_is_paired_by_problem() -> None:
    base, adapter = [[WRONG, RIGHT]] * 12, [[RIGHT, RIGHT]] * 12
    found = comparison(base, adapter)
    assert found["difference"] == 0.5
    assert 0 < found["ci95"][0] < 0.5 < found["ci95"][1]
    assert found["p"] < 0.001


def test_few_problems_have_no_interval_of_a_comparison() -> None:
    assert comparison([[WRONG]] * 5, [[RIGHT]] * 5)["ci95"] is None


def test_equal_answers_are_one_vote_however_they_are_written() -> None:
    rows = [
        row("correct", r"\frac{1}{2}"),
        row("correct", "0.5"),
        row("wrong", "1,000"),
        row("wrong", "1000"),
        row("wrong", "(2, 3)"),
        row("unparsable", None),
        row("timeout", "9^{9^{9}}"),
    ]
    numbers = [number for number, _ in votes(rows)]
    assert numbers == [-1, -1, 0, 0, 1, None, 2]
