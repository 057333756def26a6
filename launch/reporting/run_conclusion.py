"""The conclusion of a run: did it learn? One sentence, and the evidence for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from microbudget_rl.actors.evaluation.statistics import (
    FEWEST,
    Difference,
    Mean,
    known_rewards,
    over_problems,
    paired_difference,
    reward_difference,
)
from microbudget_rl.actors.results import Results
from microbudget_rl.actors.storage.documents import EventKind, PolicyScores, SampleRow
from microbudget_rl.conf.schema.reward import weighs_answers
from microbudget_rl.launch.reporting.health import behind, events, frozen
from microbudget_rl.launch.reporting.wording import SPACE, WORDS, decimal, many, percent, precise, shorten, span

REASON_CHARACTERS = 160
"""Most characters of the reason for a run's end in its conclusion; the flags have the whole reason."""


@dataclass(frozen=True)
class Effect:
    """The effect of training: held-out pass@1 before and after it, or the mean reward.

    reward: whether it is the reward.
    problems: number of problems in both evaluations; without the samples, the smaller number of the two.
    difference: paired by problem; without the samples, the plain difference.
    """

    before: Mean
    after: Mean
    problems: int
    difference: Difference
    reward: bool = False

    @property
    def finding(self) -> str:
        """rose, fell or unclear."""
        if not self.difference.shown:
            return "unclear"
        return "rose" if self.difference.value > 0 else "fell"

    @property
    def what(self) -> str:
        return "reward" if self.reward else "pass@1"

    @property
    def levels(self) -> str:
        """From what to what, such as `7.8 % to 84.8 %`."""
        written = precise if self.reward else percent
        return f"{written(self.before.value)} to {written(self.after.value)}"

    @property
    def interval(self) -> str:
        """The interval of the difference, in points or of the reward."""
        if self.reward and self.difference.interval:
            return " to ".join(map(precise, self.difference.interval))
        return span(self.difference.interval)

    def size(self, signed: bool = True) -> str:
        """Write the difference, in points or of the reward."""
        value, sign = (self.difference.value, "+") if signed else (abs(self.difference.value), "")
        return precise(value, sign) if self.reward else f"{decimal(value * 100, sign=sign)} points"


def mean_of(evaluation: PolicyScores) -> Mean:
    """Return pass@1 of an evaluation from summary.json."""
    low, high = evaluation.ci95
    return Mean(evaluation.pass_at_1, (low, high) if evaluation.problems >= FEWEST else None)


def effect(
    run: Results, first: str = "base", last: str = "final", benchmark: str = "", family: int = 1
) -> Effect | None:
    """Return how pass@1 has changed from one policy to another, on the held-out problems or a benchmark; None unless
    both evaluations were made. From `base` to `warm` it is what a start adapter or a warm start has made.
    """
    scores = run.eval.benchmarks[benchmark] if benchmark else run.eval
    start, end = getattr(scores, first), getattr(scores, last)
    if not start or not end:
        return None
    before, after = run.solved(first, benchmark), run.solved(last, benchmark)
    if (difference := paired_difference(before, after, family)) is None:
        levels = mean_of(start), mean_of(end)
        return Effect(*levels, min(start.problems, end.problems), Difference(levels[1].value - levels[0].value))
    common = before.keys() & after.keys()
    levels = over_problems(before[name] for name in common), over_problems(after[name] for name in common)
    return Effect(*levels, len(common), difference)


def reinforcement(run: Results) -> Effect | None:
    """Return the part of the effect since version 0; None if that is not the base model and was not evaluated."""
    return effect(run, "warm") if run.eval.warm or run.start else effect(run)


def changes(run: Results) -> dict[str, Effect]:
    """Return how pass@1 on each of `eval.benchmarks` with both evaluations has changed. The intervals hold together."""
    names = [name for name, each in run.eval.benchmarks.items() if each.base and each.final]
    effects = {name: effect(run, benchmark=name, family=len(names)) for name in names}
    return {name: each for name, each in effects.items() if each}


def reward_effect(before: Sequence[SampleRow], after: Sequence[SampleRow]) -> Effect | None:
    """Return how the mean reward has changed from one evaluation to another; None if it is not known of both."""
    first, last = known_rewards(before), known_rewards(after)
    if (difference := reward_difference(first, last)) is None:
        return None
    common = first.keys() & last.keys()
    start = fmean(first[problem] for problem in common)
    return Effect(Mean(start), Mean(start + difference.value), len(common), difference, reward=True)


def learned(run: Results) -> Effect | None:
    """Return what reinforcement learning changed: pass@1, or the reward where that weighs no answer."""
    if weighs_answers(run.config):
        return reinforcement(run)
    return reward_effect(run.samples["warm" if run.eval.warm or run.start else "base"], run.samples["final"])


def finding(run: Results) -> str:
    """Return what reinforcement learning did: rose, fell, unclear, or none if it is unknown."""
    change = learned(run)
    return change.finding if change else "none"


def conclude(run: Results, change: Effect | None) -> str:
    """Return the conclusion, and what qualifies it; the change of the reward if that does not weigh answers."""
    if change and not run.summary.updates and not run.rows:
        return f"No conclusion: no update was made; {_ended(run)}.{_parts(run, change)}"
    late = f" It made only {said}." if (said := behind(run)) else ""
    if share := frozen(run):
        late += (
            f" At the end, {percent(share, 0)} of the training problems were answered wrongly, the same way each time."
        )
    shown = ((name, gain) for name, gain in changes(run).items() if gain.finding != "unclear")
    late += "".join(f" {_change(gain, f'Pass@1 on {name}')}" for name, gain in shown)
    missed = dict.fromkeys(event.detail for event in events(run, EventKind.CUT_OFF))
    late += "".join(f" {said[:1].upper()}{said[1:]}." for said in missed)
    if change:
        imitated = _parts(run, change) if weighs_answers(run.config) else ""
        said = _sentence(reinforced) if (reinforced := learned(run)) else _unknown(run, change)
        _, decided = run.series("adapter_check/decided")
        if reinforced and reinforced.finding == "rose" and decided and not any(decided):
            said += " The adapter check saw no change beyond the noise: confirm the gain by another seed."
        return said + imitated + _choice(run) + late
    missing = f"{'the base model' if run.eval.base is None else 'the trained model'} was not evaluated"
    if run.config.get("eval.problems") == 0:
        missing = "no problems were held out"
    base = run.eval.base
    if known := base or run.eval.final:
        on = f"{many(known.problems, 'held-out problem')} with {many(known.n, 'sample')} each"
        late = f" Pass@1 of the {'base' if base else 'trained'} model was {percent(known.pass_at_1)} on {on}.{late}"
    return f"No conclusion: {missing}; {_ended(run)}.{late}"


def _unknown(run: Results, whole: Effect) -> str:
    """Say what is known where the effect of reinforcement learning is not."""
    if run.start and not run.eval.warm:
        return (
            f"No conclusion: held-out pass@1 went from {whole.levels}, by {whole.size()}, but how much of this is the"
            f" {run.start}'s is not known, since version 0 was not evaluated."
        )
    return "No conclusion: the held-out rewards are not known, or lack what only training has; see the learning curve."


def _parts(run: Results, whole: Effect) -> str:
    """Say what came before, and all together, so that nobody takes it for reinforcement."""
    if not (before := effect(run, last="warm")):
        return ""
    said = {f"The {run.start}, not reinforcement, came before": before, "All together": whole}
    return "".join(
        f" {name}: {part.levels}, {part.size()}"
        + (f" (95{SPACE}% interval {part.interval})." if part.difference.interval else ".")
        for name, part in said.items()
    )


def _choice(run: Results) -> str:
    """Say which version is the result, unless it is the last."""
    result = run.summary.result
    if result is None or result.update == run.summary.updates:
        return ""
    problems = [row.metrics["validation/problems"] for row in run.rows if "validation/problems" in row.metrics]
    on = f", chosen on {many(int(problems[-1]), 'validation problem')}" if problems else ""
    return f" The result is update {result.update} of {run.summary.updates}{on}."


def _ended(run: Results) -> str:
    reason = shorten(run.summary.reason, REASON_CHARACTERS)
    ended = WORDS["endings"].get(run.summary.status, run.summary.status)
    return f"the run {ended}" + (f" ({reason})" if reason else "")


def _change(change: Effect, what: str) -> str:
    """Say what rose or fell, from what to what, and by how much."""
    size = f"{change.size(signed=False)} (95{SPACE}% interval {change.interval})"
    return f"{what} {change.finding} from {change.levels}, by {size}."


def _sentence(change: Effect) -> str:
    what = f"held-out {change.what}"
    if change.finding != "unclear":
        return f"{'It learned' if change.finding == 'rose' else 'It got worse'}: {_change(change, what)}"
    went = f"{what} went from {change.levels}, by {change.size()}"
    if change.difference.p is None and not change.reward:
        return f"{went[0].upper()}{went[1:]}; without the samples it has no interval."
    why = f"and the 95{SPACE}% interval {change.interval} does not exclude zero"
    if change.difference.interval is None:
        why = f"on {many(change.problems, 'problem')}, too few to tell it from chance"
    return f"No learning can be shown: {went}, {why}."


def basis(run: Results, change: Effect | None) -> str:
    """Return the evidence for the conclusion, shown below it."""
    start = run.eval.warm or run.eval.base
    known = learned(run) if change else None
    if not known or not start or not run.eval.final:
        return ""
    before, after = start.n, run.eval.final.n
    each = f"{many(before, 'sample')} of each" + (f" before training, {after} after it" if before != after else "")
    compared = ", every problem compared with itself" if known.difference.p is not None else ""
    interval = "The interval is over problems. " if known.difference.interval else ""
    return (
        f"{many(known.problems, 'held-out problem')}, {each}{compared}. {interval}This is one run with one seed;"
        " the result of another seed may differ."
    )
