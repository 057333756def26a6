"""Tests the paper's claims on the exams of a sweep, and says in two sentences what these amount to."""

from collections import Counter
from math import inf
from operator import attrgetter
from statistics import fmean
from typing import Any

from actors.evaluation.statistics import Difference, paired_difference
from launch.reporting.exams.gains import Found, Models, alike, compared, gain, ranks
from launch.reporting.exams.paper import PAPER, short_name
from launch.reporting.health import Flag
from launch.reporting.seeds import unpooled_difference
from launch.reporting.wording import MISSING, SPACE, decimal, many, points, span

VERDICTS = SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = "supported", "contradicted", "undecided", "not tested"

Claim = dict[str, Any]
"""A claim in paper.yaml."""

Finding = tuple[str, str]
"""A verdict, and the evidence for it in words."""


def verdict(difference: Difference, low: float = -inf, high: float = inf) -> str:
    """Judge the claim that a difference lies between two bounds: it is supported if the whole interval does, and
    contradicted if no part of it does.
    """
    least, most = difference.interval or (-inf, inf)
    if most < low or least > high:
        return CONTRADICTED
    return SUPPORTED if difference.interval and low <= least and most <= high else UNDECIDED


def verdict_on_size(difference: Difference, size: float) -> str:
    """Judge the claim of a rise by `size`: it is supported if the interval has it and not 0, and contradicted if the
    interval does not have it.
    """
    of_size = verdict(difference, size, size)
    return of_size if of_size == CONTRADICTED or verdict(difference, low=0.0) != SUPPORTED else SUPPORTED


def highest_minus_lowest(models: Models, claim: Claim, family: int) -> Finding | None:
    """Compare pass@1 at the highest rank with that at the lowest. The base models cancel out."""
    if len(known := ranks(models)) < 2:
        return None
    low, high = (alike(models, attrgetter("rank"), rank) for rank in (known[0], known[-1]))
    found = compared(low, high, models, family)
    return _judged(f"pass@1 at rank {known[-1]} minus rank {known[0]}", found, claim, family)


def trained_minus_base(models: Models, claim: Claim, family: int) -> Finding | None:
    """Compare pass@1 of the trained policies in the tables with that of their base models."""
    return _judged("pass@1 trained minus base", gain(models, family, claim.get("benchmarks", ())), claim, family)


def entropy(models: Models, claim: Claim, family: int) -> Finding | None:
    """Compare the change of entropy at the highest rank, without its sign, with `to` times that at the lowest.

    The claim is contradicted if one model contradicts it, and supported if all support it.
    """
    times, verdicts = [], []
    for model in models:
        known = {
            rank: of for rank in sorted({each.rank for each in model.trained}) if (of := model.entropy_changes(rank))
        }
        if len(known) > 1:
            (first, *_, last), to = known, claim["to"]
            low, high = ([abs(change) for change in known[rank]] for rank in (first, last))
            found = unpooled_difference([to * change for change in low], high, family * len(models))
            verdicts.append(verdict(found, high=0.0))
            sure = f"{many(min(len(low), len(high)), 'seed')} cannot show it"
            if found.interval:
                sure = f"minus {to} times: 95{SPACE}% interval {span(found.interval)} points"
            ratio = decimal(fmean(high) / fmean(low)) if any(low) else MISSING
            times.append(f"{model.name} at rank {last} {ratio} times that at rank {first} ({sure})")
    judged = next((each for each in (CONTRADICTED, UNDECIDED) if each in verdicts), SUPPORTED)
    return (judged, f"change of entropy: {'; '.join(times)}") if times else None


TESTS = {test.__name__: test for test in (highest_minus_lowest, trained_minus_base, entropy)}


def _judged(what: str, found: Found | None, claim: Claim, family: int) -> Finding | None:
    if found is None:
        return None
    difference, basis, problems = found
    bounds = {"low": claim.get("from", -inf) / 100, "high": claim.get("to", inf) / 100}
    judged = verdict_on_size(difference, claim["size"] / 100) if "size" in claim else verdict(difference, **bounds)
    interval = f"95{SPACE}% interval {span(difference.interval)} for {many(family, 'claim')} together"
    unchanged = dict.fromkeys(range(problems), 0.0)
    best = paired_difference(unchanged, unchanged, family)
    if best and judged == UNDECIDED and {"from", "to"} <= claim.keys() and verdict(best, **bounds) != SUPPORTED:
        basis += ", which cannot show it even if none changes"
    return judged, f"{what} {points(difference.value)} points ({interval}; {basis})"


def findings(results: Models) -> list[tuple[Claim, Finding]]:
    """Test the claims if there is a model of theirs. Intervals hold for all tested together (Bonferroni)."""

    def test(claim: Claim, family: int) -> Finding | None:
        models = [each for each in results if claim.get("models") in (None, each.kind, short_name(each.name))]
        return TESTS[claim["test"]](models, claim, family)

    claims: list[Claim] = PAPER["claims"] if any(each.kind for each in results) else []
    family = sum(test(claim, 1) is not None for claim in claims)
    return [(claim, test(claim, family) or (NOT_TESTED, f"it needs {claim['needs']}")) for claim in claims]


def flags(results: Models) -> list[Flag]:
    """Return each claim with its verdict, the evidence, the paper's words, and what stands against it elsewhere."""
    found = []
    for claim, (judged, said) in findings(results):
        words = f" The paper says more: {claim['paper']}." if "paper" in claim else ""
        found.append(Flag(judged, claim["claim"], f"{said}.{words} Against it elsewhere: {claim['against']}"))
    return found


def conclude(results: Models) -> str:
    """Say what training gave each model on all benchmarks, and how many of the paper's claims hold."""
    gains = {each.name: found[0] for each in results if (found := gain([each], len(results)))}
    if not gains:
        return "No conclusion: no model has both a base and a trained policy measured on the benchmarks yet."
    said = []
    for sign, word in ((SUPPORTED, "rose"), (CONTRADICTED, "fell")):
        names = [f"{name} ({points(of.value)} points)" for name, of in gains.items() if verdict(of, low=0.0) == sign]
        said += [f"{word} for {' and '.join(names)}"] if names else []
    if unclear := sum(verdict(of, low=0.0) == UNDECIDED for of in gains.values()):
        said.append(f"shows no change beyond chance for {unclear} of {many(len(results), 'model')}")
    if unknown := len(results) - len(gains):
        said.append(f"is not measured yet for {unknown}")
    counts = Counter(judged for _, (judged, _) in findings(results))
    verdicts = ", ".join(f"{counts[each]} {each}" for each in VERDICTS if counts[each])
    judged = f" Of the paper's {many(sum(counts.values()), 'claim')}: {verdicts}." if counts else ""
    return f"With training, pass@1 on the benchmarks {'; '.join(said)}.{judged}"
