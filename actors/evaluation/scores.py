"""Scores of one policy on a benchmark, and the comparison of two."""

from collections.abc import Callable, Sequence
from statistics import fmean

from actors.evaluation.statistics import paired_difference, pass_at, share_interval
from actors.messages import Status
from actors.storage.documents import EvaluatedSample, PairedDifference, PolicyScores

Samples = Sequence[Sequence[EvaluatedSample]]
"""Samples of one policy by problem, equally many of each."""

Alike = Callable[[str, str], bool]
"""Tells whether two answers are the same. An unreadable answer does not even equal itself."""

UNVERIFIED = (Status.TIMEOUT, Status.CRASH)


def scores(samples: Samples, alike: Alike) -> PolicyScores:
    """Return pass@k for the paper's k and n, and maj@n, with 95 % intervals over problems, and means over samples.

    A response that could not be verified counts as wrong.
    """
    n = len(samples[0])
    values = {**pass_at(correct(samples), n), "maj@n": [majority(rows, alike) for rows in samples]}
    rows = [row for of_problem in samples for row in of_problem]
    measured = {name: {"value": fmean(each), "ci95": list(share_interval(each))} for name, each in values.items()}
    means = {
        "mean_length": fmean(row.tokens for row in rows),
        "truncated": fmean(row.finish_reason == "length" for row in rows),
        "format": fmean(row.format for row in rows),
        "unjudged": fmean(row.status in UNVERIFIED for row in rows),
    }
    return PolicyScores.model_validate({"n": n, **measured, **means})


def comparison(base: Samples, adapter: Samples) -> PairedDifference:
    """Return the adapter's pass@1 minus the base model's, with the 95 % interval over problems and the p-value."""
    before, after = ({i: of / len(base[0]) for i, of in enumerate(correct(rows))} for rows in (base, adapter))
    found = paired_difference(before, after)
    assert found is not None  # there are problems
    assert found.p is not None
    return PairedDifference(difference=found.value, ci95=found.interval and list(found.interval), p=found.p)


def correct(samples: Samples) -> list[int]:
    """Return the number of correct samples of each problem."""
    return [sum(row.status == Status.CORRECT for row in rows) for rows in samples]


def majority(rows: Sequence[EvaluatedSample], alike: Alike) -> float:
    """Return 1 if the commonest answer to a problem is correct, else 0; in a tie, the fraction that is correct.

    All correct answers count as one answer, and unreadable ones do not vote.
    """
    solved = sum(row.status == Status.CORRECT for row in rows)
    others: dict[str, int] = {}
    for row in rows:
        answer = row.extracted or ""
        if row.status != Status.CORRECT and alike(answer, answer):
            same = next((other for other in others if alike(other, answer)), answer)
            others[same] = others.get(same, 0) + 1
    counts = [solved, *others.values()]
    return 1 / counts.count(solved) if solved and solved == max(counts) else 0.0
