"""Samples training problems as a run would, and says whether a run could learn from them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from microbudget_rl.actors.adapter_check.at_work import check_before_evaluation
from microbudget_rl.actors.attempt import Attempt, Attempts, rollout_sampling
from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.evaluation.statistics import FEWEST, UNVERIFIED, Mean, correct, pass_at, share_interval
from microbudget_rl.actors.messages import AdapterRef, Problem, Request, Status
from microbudget_rl.actors.runtime.supervision import Record
from microbudget_rl.actors.storage.documents import SampleRow
from microbudget_rl.actors.storage.run_folder import sample_row
from microbudget_rl.conf.catalogue import table
from microbudget_rl.conf.errors import BadInput, printable
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.schema.call import SignalConfig
from microbudget_rl.launch.checkup.measurement import started_engines
from microbudget_rl.launch.plan.measurements import Signal, workload_of
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.rewards.verify.text.extraction import BOX
from microbudget_rl.rewards.weighted_sum import reward_function

PARTS = 20
"""Parts in which problems are sampled, each with a line of progress and maybe the end."""

AT_A_LOOK = 0.9925
"""Confidence of an interval after one part, with which those after all parts hold together in 95 % of the cases:
Pocock 1977 (Biometrika 64, 191)."""

COMMONEST = 5
"""Most ways to fail that are shown."""

SHOWN = 100
"""Characters shown of the beginning of a text, and of its end."""

Figures = Mapping[str, Mean]

Samples = Sequence[Sequence[SampleRow]]
"""Responses by problem, equally many to each."""


@dataclass(frozen=True)
class AnswerRule:
    """A row of conf/verdicts.yaml. when: figure → the value from which, and the one below which, the rule applies."""

    verdict: str
    when: Mapping[str, tuple[float, float]]
    reason: str
    remedy: str

    @property
    def worth(self) -> bool:
        return not self.remedy

    def applies(self, figures: Figures) -> bool:
        return all(name in figures and low <= figures[name].value < high for name, (low, high) in self.when.items())

    def sentence(self, signal: Signal) -> str:
        """Return the answer with its reason and its remedy."""
        text = f"{self.verdict.capitalize()}: {self.reason}{f'; {self.remedy}' if self.remedy else ''}."
        values = {name: shown(name, mean) for name, mean in signal.figures.items()}
        return text.format_map({"groups": "an unknown number", "n": signal.n, **values})


RULES, WORDS = tuple(AnswerRule(**row) for row in table("verdicts")["rules"]), table("verdicts")["figures"]


def rule_for(figures: Figures) -> AnswerRule:
    """Return the first rule that applies: the doctor's answer."""
    return next(rule for rule in RULES if rule.applies(figures))


def others(figures: Figures) -> set[str]:
    """Return the other answers that an end of a figure's interval would give; none if the answer is certain."""

    def at(moved: set[str], end: int) -> str:
        ends = {name: Mean(mean.interval[end]) for name, mean in figures.items() if name in moved and mean.interval}
        return rule_for({**figures, **ends}).verdict

    together = [{name} for name in figures.keys() - {"useful", "groups"}] + [{"useful", "groups"}]  # multiples
    return {at(moved, end) for moved in together for end in (0, 1)} - {rule_for(figures).verdict}


def shown(name: str, mean: Mean) -> str:
    """Write a figure with its interval."""
    if name == "groups":
        return f"about {mean.value:,.0f}"
    return f"{mean.value:.1%}" + (" ({:.1%} to {:.1%})".format(*mean.interval) if mean.interval else "")


@dataclass(frozen=True)
class Sampled:
    """The samples of training problems. seconds: they took."""

    problems: Sequence[Problem]
    samples: Samples
    seconds: float


async def sample(
    plan: Plan,
    model_path: str,
    problems: Sequence[Problem],
    asked: SignalConfig,
    record: Record,
    go_on: Callable[[Sampled], bool],
) -> Sampled:
    """Sample part after part, on a running Ray, while `go_on` returns true. Raises BadInput if no part is complete."""
    from microbudget_rl.launch.session.actors import start_verifier

    config, rollout, start, clock = plan.config, plan.config.rollout, plan.config.lora.start_from, WallClock()
    size = rollout.samples_per_problem
    groups = math.ceil(asked.samples / size)
    problems, rows = problems[: asked.problems], list[list[SampleRow]]()
    async with AsyncExitStack() as stack:
        engines, _, placement = await stack.enter_async_context(started_engines(plan, model_path, clock, record))
        verifier = start_verifier(reward_function(config), placement, clock, record)
        stack.push_async_callback(verifier.close)
        await engines.ready()
        if adapter := AdapterRef(0, 0, str(Path(start).resolve())) if start else None:
            await engines.load(adapter)
            await check_before_evaluation(config, engines, adapter, tuple(problems))
        attempts, began = Attempts(config, engines, verifier, clock), clock.now()
        at_once = max(rollout.concurrent_samples // size, 1) * len(placement.rollouts)
        part = max(math.ceil(len(problems) / PARTS), at_once // groups)
        while len(rows) < len(problems):
            repeated = [problem for problem in problems[len(rows) : len(rows) + part] for _ in range(groups)]
            requests = [
                Request(index, problem, adapter, rollout_sampling(config, "signal", index))
                for index, problem in enumerate(repeated, start=len(rows) * groups)
            ]
            made = dict[int, Attempt]()
            seconds = 60 * asked.minutes + began - clock.now()
            complete = await attempts.make_all(requests, at_once, made.__setitem__, seconds)
            if not complete and not rows:
                needed = math.ceil(2 * asked.minutes * len(requests) / max(len(made), 1))  # the short ones end first
                known = f"{len(made)} of the first {len(requests)} groups have their {size} responses"
                raise BadInput(f"signal.minutes={asked.minutes:g}: {known}; give signal.minutes={needed}")
            if not complete:  # the responses that there are would be the short ones
                break
            for first in range(0, len(requests), groups):
                repeats = [made[place].group for place in range(first, first + groups)]
                rows.append([sample_row(group, number) for group in repeats for number in range(size)])
            if not go_on(Sampled(problems[: len(rows)], rows, clock.now() - began)):
                break
        return Sampled(problems[: len(rows)], rows, clock.now() - began)


def signal_of(sampled: Sampled, plan: Plan) -> Signal:
    """Return the figures of samples, by the names in conf/verdicts.yaml, and the answer."""
    samples, n, config = sampled.samples, len(sampled.samples[0]), plan.config
    size = config.rollout.samples_per_problem
    graded = [[_grade(rows[at : at + size], config) for at in range(0, n, size)] for rows in samples]
    passed = pass_at(correct(samples), n)
    figures = {
        "pass@1": passed[1],
        "pass@n": passed[n],
        "varied": [fmean(varied for varied, _, _ in groups) for groups in graded],
        "useful": [fmean(useful for _, useful, _ in groups) for groups in graded],
        "paid": [fmean(known) for group in graded if (known := [paid for _, _, paid in group if paid is not None])],
        "unverified": [fmean(map(_unverified, rows)) for rows in samples],
        "unparsable": [fmean(row.status == Status.UNPARSABLE for row in rows) for rows in samples],
        "ended": [fmean(row.finish_reason != "length" for row in rows) for rows in samples],
    }
    enough = {name: values for name, values in figures.items() if len(values) >= min(FEWEST, len(samples))}
    means = {name: Mean(fmean(values), share_interval(values, AT_A_LOOK)) for name, values in enough.items()}
    means["asked"] = Mean(fmean(BOX in problem.prompt for problem in sampled.problems))
    useful, varied, rows = means["useful"], means["varied"].value, [row for rows in samples for row in rows]
    prompt, response = fmean(len(each.prompt_ids) for each in sampled.problems), fmean(row.tokens for row in rows)
    work = workload_of(rows, prompt, response, varied)
    if expected := replace(plan, calibration=replace(plan.calibration, workload=work)).estimate:
        # dynamic sampling replaces groups whose rewards do not differ
        used = work.varied if config.learner.dynamic_sampling else 1.0
        made = expected.updates * config.learner.problems_per_update / used
        interval = useful.interval and (made * useful.interval[0], made * useful.interval[1])
        means["groups"] = Mean(made * useful.value, interval)
    signal, rule = Signal(len(samples), n, means, work), rule_for(means)
    return replace(signal, verdict=rule.verdict, warning="" if rule.worth else rule.sentence(signal))


def _grade(group: Sequence[SampleRow], config: Config) -> tuple[bool, bool, bool | None]:
    """Return whether a group's rewards differ, whether it is useful, and whether right responses earn more, or None."""
    weighed = config.reward.weighs_answers
    rows = [row for row in group if config.reward.timeout != "mask" or not _unverified(row)]
    right = [row.reward or 0.0 for row in rows if row.status == Status.CORRECT]
    wrong = [row.reward or 0.0 for row in rows if row.status != Status.CORRECT]
    varied, mixed = len({*right, *wrong}) > 1, bool(right and wrong)
    return varied, varied and (mixed or not weighed), fmean(right) > fmean(wrong) if mixed and weighed else None


def _unverified(row: SampleRow) -> bool:
    return bool(row.failure) or row.status in UNVERIFIED


def commonest(samples: Samples) -> Iterator[str]:
    """Yield a line for each of the commonest ways to fail: how many of the responses, and the first such sample."""
    ways = defaultdict[str, list[SampleRow]](list)
    rows = [row for of_problem in samples for row in of_problem]
    for row in rows:
        if row.failure:
            ways[f"the reward function failed: {_short(row.failure)}"].append(row)
        elif row.status != Status.CORRECT:
            ways[row.status + ", truncated" * (row.finish_reason == "length")].append(row)
    for way, failed in sorted(ways.items(), key=lambda item: -len(item[1]))[:COMMONEST]:
        row = failed[0]
        yield (
            f"{len(failed) / len(rows):.1%} {way}: {_short(row.prompt, 0)} → {_short(row.response)}"
            f" (reference answer {_short(row.gold)})"
        )


def _short(text: str, head: int = SHOWN) -> str:
    """Return a text on one line, as it may be shown on any screen. head: characters of its beginning to show."""
    return printable(text if len(text) <= head + SHOWN else f"{text[:head]}… {text[-SHOWN:]}")
