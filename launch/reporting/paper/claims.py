"""Tests the paper's claims on the benchmarks of a sweep, and says in two sentences what the results amount to."""

from collections import Counter
from math import inf
from statistics import fmean
from typing import Any

from microbudget_rl.actors.evaluation.statistics import Difference
from microbudget_rl.launch.reporting.comparison import seeds_to_decide, welch_difference
from microbudget_rl.launch.reporting.health import Flag
from microbudget_rl.launch.reporting.paper import PAPER, short_name
from microbudget_rl.launch.reporting.paper.results import Gain, Models, compared, gain, of_rank
from microbudget_rl.launch.reporting.wording import MISSING, SPACE, decimal, many, points, span

SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = "supported", "contradicted", "undecided", "not tested"
ONE_SEED = "undecided (one seed)"
VERDICTS = SUPPORTED, CONTRADICTED, UNDECIDED, ONE_SEED, NOT_TESTED

Claim = dict[str, Any]
"""A claim in paper.yaml."""

Judgement = tuple[str, str]
"""A verdict, and the evidence for it in words."""


def verdict(difference: Difference, low: float = -inf, high: float = inf) -> str:
    """Judge that a difference lies between bounds: supported if its whole interval does, contradicted if no part."""
    least, most = difference.interval or (-inf, inf)
    if most < low or least > high:
        return CONTRADICTED
    return SUPPORTED if difference.interval and low <= least and most <= high else UNDECIDED


def verdict_on_size(difference: Difference, size: float) -> str:
    """Judge a rise by `size`: supported if the interval has it and not 0, contradicted if it does not have it."""
    of_size = verdict(difference, size, size)
    return of_size if of_size == CONTRADICTED or verdict(difference, low=0.0) != SUPPORTED else SUPPORTED


def highest_minus_lowest(models: Models, claim: Claim, family: int) -> Judgement | None:
    """Compare pass@1 at the highest rank with that at the lowest. The base models cancel out."""
    known = sorted({each.rank for model in models for each in model.trained if each.scores})
    if len(known) < 2:
        return None
    found = compared(of_rank(models, known[0]), of_rank(models, known[-1]), family)
    return _judged(f"pass@1 at rank {known[-1]} minus rank {known[0]}", found, claim, family, sides=2)


def trained_minus_base(models: Models, claim: Claim, family: int) -> Judgement | None:
    """Compare pass@1 of the trained policies in the tables with that of their base models."""
    return _judged("pass@1 trained minus base", gain(models, family, claim.get("benchmarks", ())), claim, family, 1)


def entropy(models: Models, claim: Claim, family: int) -> Judgement | None:
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
            found = welch_difference([to * change for change in low], high, family * len(models))
            fewest = min(len(low), len(high))
            verdicts.append(verdict(found, high=0.0) if fewest > 1 else ONE_SEED)
            sure = f"{many(fewest, 'seed')} cannot show it"
            if found.interval:
                sure = f"minus {to} times: 95{SPACE}% interval {span(found.interval)} points"
            ratio = decimal(fmean(high) / fmean(low)) if any(low) else MISSING
            times.append(f"{model.name} at rank {last} {ratio} times that at rank {first} ({sure})")
    judged = next((each for each in (CONTRADICTED, ONE_SEED, UNDECIDED) if each in verdicts), SUPPORTED)
    return (judged, f"change of entropy: {'; '.join(times)}") if times else None


TESTS = {test.__name__: test for test in (highest_minus_lowest, trained_minus_base, entropy)}


def _judged(what: str, found: Gain | None, claim: Claim, family: int, sides: int) -> Judgement | None:
    """sides: as in `seeds_to_decide`."""
    if found is None:
        return None
    difference, basis, problems = found
    bounds = {"low": claim.get("from", -inf) / 100, "high": claim.get("to", inf) / 100}
    if not problems and not difference.interval:
        ends = (claim["size"] / 100, 0.0) if "size" in claim else bounds.values()
        distance = (max if "size" in claim else min)(abs(difference.value - end) for end in ends)
        needed = seeds_to_decide(distance, family, sides)
        return ONE_SEED, f"{what} {points(difference.value)} points ({basis}; {needed})"
    judged = verdict_on_size(difference, claim["size"] / 100) if "size" in claim else verdict(difference, **bounds)
    interval = f"95{SPACE}% interval {span(difference.interval)} for {many(family, 'claim')} together"
    return judged, f"{what} {points(difference.value)} points ({interval}; {basis})"


def findings(results: Models) -> list[tuple[Claim, Judgement]]:
    """Test the claims if there is a model of theirs. Intervals hold for all tested together (Bonferroni)."""

    def test(claim: Claim, family: int) -> Judgement | None:
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
    gains = {each.name: found for each in results if (found := gain([each], len(results)))}
    if not gains:
        return "No conclusion: no model has both a base and a trained policy measured on the benchmarks yet."
    judged: dict[str, list[str]] = {}
    one_seed = {name for name, (of, _, problems) in gains.items() if not problems and not of.interval}
    for name, (of, *_) in gains.items():
        sign = ONE_SEED if name in one_seed else verdict(of, low=0.0)
        judged.setdefault(sign, []).append(f"{name} ({points(of.value)})")
    words = {SUPPORTED: "rose", CONTRADICTED: "fell", ONE_SEED: f"is {ONE_SEED}"}
    said = [f"{word} for {', '.join(judged[sign])}" for sign, word in words.items() if sign in judged]
    if one_seed:
        least = min(abs(gains[name][0].value) for name in one_seed)
        said[-1] += f" (the smallest change: {seeds_to_decide(least, len(results), 1)})"
    if UNDECIDED in judged:
        said.append(f"shows no change beyond chance for {len(judged[UNDECIDED])} of {many(len(results), 'model')}")
    if unknown := len(results) - len(gains):
        said.append(f"is not measured yet for {unknown}")
    counts = Counter(each for _, (each, _) in findings(results))
    verdicts = ", ".join(f"{counts[each]} {each}" for each in VERDICTS if counts[each])
    of_paper = f" Of the paper's {many(sum(counts.values()), 'claim')}: {verdicts}." if counts else ""
    return f"With training, pass@1 on the benchmarks (in points) {'; '.join(said)}.{of_paper}"
