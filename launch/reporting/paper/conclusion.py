"""Says in a sentence what training gave the models of a sweep on its benchmarks."""

from collections import defaultdict

from microbudget_rl.actors.evaluation.statistics import Difference
from microbudget_rl.launch.reporting.comparison import seeds_to_decide
from microbudget_rl.launch.reporting.paper.results import Models, gain
from microbudget_rl.launch.reporting.wording import many, points

ROSE, FELL, UNDECIDED, ONE_SEED = "rose", "fell", "shows no change beyond chance", "is undecided (one seed)"


def verdict(difference: Difference, problems: int) -> str:
    """Return what a difference says of the sign of the change. problems: as in `Gain`."""
    if not difference.interval:
        return UNDECIDED if problems else ONE_SEED
    lowest, highest = difference.interval
    return ROSE if lowest >= 0 else FELL if highest < 0 else UNDECIDED


def conclude(results: Models) -> str:
    """Say what training gave each model on all benchmarks."""
    gains = {each.name: gained for each in results if (gained := gain(each, each.shown, len(results)))}
    if not gains:
        return "No conclusion: no model has both a base and a trained policy measured on the benchmarks yet."
    models = defaultdict[str, list[str]](list)
    for name, (difference, _, problems) in gains.items():
        models[verdict(difference, problems)].append(name)
    parts = []
    for word in (ROSE, FELL, ONE_SEED):
        if models[word]:
            listed = ", ".join(f"{name} ({points(gains[name][0].value)})" for name in models[word])
            parts.append(f"{word} for {listed}")
    if alone := models[ONE_SEED]:
        smallest = min(abs(gains[name][0].value) for name in alone)
        parts[-1] += f" (the smallest change: {seeds_to_decide(smallest, len(results), 1)})"
    if unclear := models[UNDECIDED]:
        parts.append(f"{UNDECIDED} for {len(unclear)} of {many(len(results), 'model')}")
    if unknown := len(results) - len(gains):
        parts.append(f"is not measured yet for {unknown}")
    return f"With training, pass@1 on the benchmarks (in points) {'; '.join(parts)}."
