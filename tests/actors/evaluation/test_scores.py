from typing import Any

import pytest

from microbudget_rl.actors.evaluation.statistics import FEWEST, comparison, majority, scores
from microbudget_rl.actors.storage.documents import EvaluatedSample


def row(status: str, extracted: str | None = None, **more: Any) -> EvaluatedSample:
    text = dict.fromkeys(("problem", "prompt", "gold", "response"), "")
    known = {"tokens": 10, "finish_reason": "stop", "format": 1.0, "sample": 0, "seconds": 1.0}
    return EvaluatedSample(status=status, extracted=extracted, **text, **known | more)


def alike(answer: str, other: str) -> bool:
    """An empty one is unreadable."""
    return answer.replace(",", "") == other.replace(",", "") != ""


RIGHT, WRONG = row("correct", "7"), row("wrong", "8", tokens=30, finish_reason="length", format=0.0)


def test_scores_of_a_policy():
    found = scores([[RIGHT, WRONG], [WRONG, WRONG]], alike)
    assert (found.n, found.problems, found.mean_length, found.truncated, found.format) == (2, 2, 25.0, 0.75, 0.25)
    assert (found.pass_at, found.maj_at_n) == ({1: 0.25, 2: 0.5}, 0.25)
    assert found.ci95[0] <= 0.25 <= found.ci95[1]
    assert found.intervals.keys() == {"pass@2", "maj@n"}
    many = scores([[RIGHT] * 20])
    assert (list(many.pass_at), many.maj_at_n) == ([1, 8, 16, 20], None)
    unverified = scores([[RIGHT, row("timeout"), row("crash"), WRONG]])
    assert (unverified.unverified, unverified.pass_at_1) == (0.5, 0.25)


def test_comparison_is_paired_by_problem():
    found = comparison([[WRONG, RIGHT]] * 12, [[RIGHT, RIGHT]] * 12)
    assert found.difference == 0.5
    assert found.ci95
    assert 0 < found.ci95[0] < 0.5 < found.ci95[1]
    assert found.p < 0.001
    assert comparison([[WRONG]] * (FEWEST - 1), [[RIGHT]] * (FEWEST - 1)).ci95 is None


@pytest.mark.parametrize(
    ("right", "others", "expected"),
    [
        (["1/2", "0.5"], ["2"], 1.0),
        (["7"], ["1,000", "1000"], 0.0),
        (["7"], ["1,000", "1001", None, None], 1 / 3),
        ([], [None], 0.0),
    ],
)
def test_majority_of_votes(right: list[str], others: list[str | None], expected: float):
    """Equal answers are one however they are written, and an unreadable one is none."""
    rows = [row("wrong", answer) for answer in others] + [row("correct", answer) for answer in right]
    assert majority(rows, alike) == expected
