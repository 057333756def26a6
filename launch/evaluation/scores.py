"""Scores of one policy on a benchmark, and the comparison of two."""

from collections.abc import Sequence
from typing import Any

from actors.evaluation.statistics import (
    PASS_KS,
    majority,
    paired_difference,
    pass_values,
    share_interval,
)
from actors.messages import Status
from rewards.verify.comparison import decide_by_text
from rewards.verify.text.spelling import plain

Row = dict[str, Any]

UNJUDGED = (Status.TIMEOUT, Status.CRASH)


def scores(samples: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Return pass@k for the paper's k and n, maj@n, with 95 % intervals over problems, and shares and mean length over
    samples. What could not be judged counts as not solved.

    samples: of one policy, n for each problem.
    """
    n = len(samples[0])
    values = {f"pass@{k}": pass_values(correct(samples), n, k) for k in sorted({*PASS_KS, n}) if k <= n}
    values["maj@n"] = [majority(votes(rows)) for rows in samples]
    rows = [row for of_problem in samples for row in of_problem]
    return {
        "n": n,
        **{name: _share(of_problems) for name, of_problems in values.items()},
        "mean_length": _mean([row["tokens"] for row in rows]),
        "truncated": _mean([row["finish_reason"] == "length" for row in rows]),
        "format": _mean([row["format"] for row in rows]),
        "unjudged": _mean([row["status"] in UNJUDGED for row in rows]),
    }


def comparison(base: Sequence[Sequence[Row]], adapter: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Return pass@1 of the adapter less the base model's, with its 95 % interval over problems and its p-value."""
    before, after = ({i: of / len(base[0]) for i, of in enumerate(correct(rows))} for rows in (base, adapter))
    found = paired_difference(before, after)
    assert found is not None  # there are problems
    return {"difference": found.value, "ci95": found.interval and list(found.interval), "p": found.p}


def correct(samples: Sequence[Sequence[Row]]) -> list[int]:
    """Return the number of correct samples of each problem."""
    return [sum(row["status"] == Status.CORRECT for row in rows) for rows in samples]


def votes(rows: Sequence[Row]) -> list[tuple[int | None, bool]]:
    """Number the answers to a problem, equal ones alike, and say which are correct. None: it cannot be read.

    Answers are equal by the verifier's rules of text and number, without algebra; those it found correct are.
    """
    known: list[str] = []
    cast: list[tuple[int | None, bool]] = []
    for row in rows:
        answer = plain(row["extracted"] or "")
        if row["status"] == Status.CORRECT:
            cast.append((-1, True))
        elif not answer:
            cast.append((None, False))
        else:
            number = next(
                (i for i, other in enumerate(known) if decide_by_text(other, answer) is Status.CORRECT), len(known)
            )
            known += [answer] * (number == len(known))
            cast.append((number, False))
    return cast


def _share(values: list[float]) -> dict[str, Any]:
    return {"value": _mean(values), "ci95": list(share_interval(values))}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
