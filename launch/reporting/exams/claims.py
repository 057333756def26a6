"""Tests the paper's claims on the exams of a sweep, and says in two sentences what these amount to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from actors.evaluation.statistics import Difference
from launch.reporting.exams.gains import Gain, compared, gain, gains, trained_policies
from launch.reporting.exams.paper import PAPER
from launch.reporting.exams.results import ModelResults
from launch.reporting.health import Flag
from launch.reporting.seeds import pooled_difference, pooled_variance
from launch.reporting.wording import MISSING, SPACE, decimal, many, points, span

VERDICTS = SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = "supported", "contradicted", "undecided", "not tested"

Models = Sequence[ModelResults]

Claim = dict[str, Any]
"""A claim in paper.yaml."""


@dataclass(frozen=True)
class Finding:
    """The result of a test. verdict: one of `VERDICTS`. said: the evidence, or why there is none."""

    verdict: str
    said: str


def above(difference: Difference, bound: float) -> str:
    """Judge the claim of a difference above a bound: it is supported if the whole interval is above it, and
    contradicted if all of it is below.
    """
    if difference.interval is None or difference.interval[0] <= bound <= difference.interval[1]:
        return UNDECIDED
    return SUPPORTED if difference.interval[0] > bound else CONTRADICTED


def below(difference: Difference, bound: float) -> str:
    """Judge the claim of a difference below a bound, in the same way."""
    return {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}.get(above(difference, bound), UNDECIDED)


def of_size(difference: Difference, size: float) -> str:
    """Judge the claim of a rise by `size`: it is supported if the interval has this size and not 0, and contradicted if
    the interval does not have it.
    """
    if difference.interval is None:
        return UNDECIDED
    least, most = difference.interval
    if not least <= size <= most:
        return CONTRADICTED
    return SUPPORTED if least > 0 else UNDECIDED


def equal(difference: Difference, margin: float) -> str:
    """Judge the claim of no difference: it is contradicted if the interval excludes 0, and supported if the interval
    lies within `margin` of it.
    """
    if difference.interval is None:
        return UNDECIDED
    least, most = difference.interval
    if not least <= 0 <= most:
        return CONTRADICTED
    return SUPPORTED if max(-least, most) < margin else UNDECIDED


def highest_minus_lowest(models: Models, claim: Claim, family: int) -> Finding | None:
    """Compare pass@1 at the highest rank with that at the lowest. The base models cancel out."""
    pairs = [(model, each) for model in models for each in model.trained if any(each.exams.values())]
    ranks = sorted({each.rank for _, each in pairs})
    by_rank = [trained_policies([pair for pair in pairs if pair[1].rank == rank]) for rank in ranks]
    found = compared(by_rank[0], by_rank[-1], by_rank[1:-1], family) if len(ranks) > 1 else None
    return _judged(f"pass@1 at rank {ranks[-1]} minus rank {ranks[0]}", found, claim, family) if found else None


def trained_minus_base(models: Models, claim: Claim, family: int) -> Finding | None:
    """Compare pass@1 of the trained policies in the tables with that of their base models."""
    found = gain(models, family, claim.get("benchmarks", ()))
    return _judged("pass@1 trained minus base", found, claim, family) if found else None


def entropy(models: Models, claim: Claim, family: int) -> Finding | None:
    """Compare the change of entropy at the highest rank, without its sign, with `to` times that at the lowest.

    The claim is contradicted if one model contradicts it, and supported if all support it.
    """
    changes = {}
    for model in models:
        by_rank = {each.rank: [abs(x) for x in each.entropy_changes] for each in model.trained if each.entropy_changes}
        if len(by_rank) > 1:
            changes[model.name] = by_rank[min(by_rank)], by_rank[max(by_rank)]
    times, verdicts = [], set()
    for name, (low, high) in changes.items():
        most = [claim["to"] * change for change in low]
        variance, freedom = pooled_variance((most, high))
        difference = Difference(fmean(high) - fmean(most))
        if variance:
            difference = pooled_difference(most, high, variance, freedom, family * len(changes))
        verdicts.add(below(difference, 0.0))
        times.append(f"{decimal(fmean(high) / fmean(low)) if any(low) else MISSING} times ({name})")
    found = next((each for each in (CONTRADICTED, UNDECIDED) if each in verdicts), SUPPORTED)
    basis = (
        "tested over seeds" if any(len(low + high) > 2 for low, high in changes.values()) else "one seed: no interval"
    )
    said = f"the change at the highest rank is {', '.join(times)} that at the lowest ({basis})"
    return Finding(found, said) if changes else None


JUDGES = {"from": above, "to": below, "size": of_size, "within": equal}

TESTS = {test.__name__: test for test in (highest_minus_lowest, trained_minus_base, entropy)}


def _judged(what: str, found: Gain, claim: Claim, family: int) -> Finding:
    difference = found.difference
    judge, bound = next((JUDGES[key], claim[key] / 100) for key in JUDGES if key in claim)
    sure = "no interval"
    if difference.interval:
        sure = f"95{SPACE}% interval {span(difference.interval)}"
        sure += f" for {family} claims together" if family > 1 else ""
    whose = " and ".join(found.models)
    return Finding(
        judge(difference, bound), f"{what} {points(difference.value)} points ({sure}; {found.basis} of {whose})"
    )


def findings(results: Models) -> list[tuple[Claim, Finding]]:
    """Test the claims. Intervals hold for all that can be tested together (Bonferroni)."""
    claims: list[Claim] = PAPER["claims"]

    def test(claim: Claim, family: int) -> Finding | None:
        models = [each for each in results if claim.get("models") in (None, each.kind, each.name)]
        return TESTS[claim["test"]](models, claim, family)

    family = sum(test(claim, 1) is not None for claim in claims)
    return [(claim, test(claim, family) or Finding(NOT_TESTED, f"it needs {claim['needs']}")) for claim in claims]


def flags(results: Models) -> list[Flag]:
    """Return each claim with its verdict, the evidence, and what stands against it elsewhere."""
    return [
        Flag(found.verdict, claim["claim"], f"{found.said}. Against it elsewhere: {claim['against']}")
        for claim, found in findings(results)
    ]


def conclude(results: Models) -> str:
    """Say what training gave each model, and how many of the paper's claims hold."""
    found = gains(results)
    if not found:
        return "No conclusion: no model has both a base and a trained policy measured on the benchmarks yet."
    signs = {name: above(difference, 0.0) for name, difference in found.items()}
    said = []
    for sign, word in ((SUPPORTED, "rose"), (CONTRADICTED, "fell")):
        names = [f"{name} ({points(found[name].value)} points)" for name in found if signs[name] == sign]
        said += [f"{word} for {' and '.join(names)}"] if names else []
    unclear, models = list(signs.values()).count(UNDECIDED), many(len(results), "model")
    said += [f"shows no change beyond chance for {unclear} of {models}"] if unclear else []
    said += [f"is not measured yet for {len(results) - len(found)}"] if len(found) < len(results) else []
    counts = Counter(of.verdict for _, of in findings(results))
    verdicts = ", ".join(f"{counts[each]} {each}" for each in VERDICTS if counts[each])
    claims = many(sum(counts.values()), "claim")
    return f"With training, pass@1 on the benchmarks {'; '.join(said)}. Of the paper's {claims}: {verdicts}."
