"""Samples training problems as a run would, and says what a run could learn from them."""

import math
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev

from actors.adapter_check.before_evaluation import check_before_evaluation
from actors.clock import WallClock
from actors.evaluation.evaluator import Evaluator
from actors.evaluation.samples import PolicySamples
from actors.evaluation.statistics import UNVERIFIED, Mean, Samples, over_problems, pass_at
from actors.evaluation.statistics import correct as correct_of
from actors.formats import counted, duration
from actors.messages import AdapterRef, Problem, Status
from actors.runtime.supervision import Record
from actors.storage.documents import EvaluatedSample
from conf.errors import BadInput
from conf.schema import Config
from conf.schema.signal import SignalConfig
from conf.settings import changed
from launch.checkup.measurement import started_engines
from launch.checkup.rules import shown
from launch.plan.calibration import LEAST_VARIED
from launch.plan.plan import Plan
from launch.plan.signal import Signal
from launch.plan.time import Workload
from rewards.verify.text.extraction import BOX

PARTS = 10
"""Parts in which the problems are sampled; after each there is a line of progress, and perhaps the end."""

FEWEST = 30
"""Fewest problems before an early end."""


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
    progress: Callable[[Sampled], bool],
) -> Sampled:
    """Start engines and verifier like a run, on a running Ray, and sample problems as long as `progress` returns true.

    Raises BadInput if the time is too short for one sample of each problem in the first part.
    """
    from launch.session.actors import start_verifier

    config, clock, size = as_trained(plan.config), WallClock(), plan.config.rollout.samples_per_problem
    n = math.ceil(asked.samples / size) * size
    problems = problems[: asked.problems]
    adapter = AdapterRef(0, 0, str(Path(start).resolve())) if (start := config.lora.start_from) else None
    async with AsyncExitStack() as stack:
        engines, _, placement = await stack.enter_async_context(started_engines(plan, model_path, clock, record))
        verifier = start_verifier(config, placement, clock=clock, record=record)
        stack.push_async_callback(verifier.close)
        await engines.ready()
        if adapter:
            await engines.load(adapter)
            await check_before_evaluation(config, engines, adapter, tuple(problems))
        at_once = config.rollout.concurrent_samples * len(placement.rollouts)
        part = max(math.ceil(len(problems) / PARTS), math.ceil(at_once / n))
        evaluator, began, found = Evaluator(config, engines, verifier, clock), clock.now(), Sampled((), (), 0.0)
        for first in range(0, len(problems), part):
            policy = PolicySamples(tuple(problems[first : first + part]), n, adapter)
            await evaluator.evaluate(policy, at_once=at_once, seconds=60 * asked.minutes + began - clock.now())
            if policy.rounds == n or not first:  # else the samples that there are would be the short ones
                rows = [*found.samples, *policy.of_rounds(policy.rounds)]
                found = Sampled(problems[: len(rows)], rows, clock.now() - began)
            if not policy.rounds and not first:
                raise BadInput(
                    f"signal.minutes={asked.minutes:g}: too short for one response to each of {part} problems; raise it"
                )
            if policy.rounds < n or not progress(found):
                break
        return found


def as_trained(config: Config) -> Config:
    """Return the settings with which an evaluation samples as training does."""
    sampling = {"temperature": config.rollout.temperature, "top_p": 1.0, "max_response_tokens": None}
    return changed(config, {f"eval.{key}": value for key, value in sampling.items()})


def signal_of(found: Sampled, config: Config) -> Signal:
    """Return the figures of samples, each the mean over problems with its 95 % interval.

    useful: groups with rewards that differ and, if accuracy is rewarded, with right and wrong responses
    varied: groups with rewards that differ
    paid: groups with right and wrong responses in which the right ones earn more
    asked: prompts that mention a box
    ended: responses that end before the limit
    unboxed: of those, the ones without a readable answer
    """
    samples, n = found.samples, len(found.samples[0])
    size = min(config.rollout.samples_per_problem, n)
    groups = [[rows[start : start + size] for start in range(0, n - n % size, size)] for rows in samples]
    masks = config.reward.timeout == "mask"
    accuracy = config.reward.accuracy > 0 or config.reward.cosine > 0
    graded = [[_Graded.of(group, masks) for group in of_problem] for of_problem in groups]
    passed = pass_at(correct_of(samples), n)
    figures = {
        "pass@1": passed["pass@1"],
        "pass@n": passed[f"pass@{n}"],
        "useful": [fmean(each.varied and (each.mixed or not accuracy) for each in of) for of in graded],
        "varied": [fmean(each.varied for each in of) for of in graded],
        "paid": [fmean(each.paid for each in mixed) for of in graded if (mixed := [each for each in of if each.mixed])],
        "unverified": [fmean(_unverified(row) for row in rows) for rows in samples],
        "unparsable": [fmean(row.status == Status.UNPARSABLE for row in rows) for rows in samples],
        "ended": [fmean(row.finish_reason != "length" for row in rows) for rows in samples],
        "unboxed": [
            fmean(row.status == Status.UNPARSABLE for row in ended)
            for rows in samples
            if (ended := [row for row in rows if row.finish_reason != "length"])
        ],
        "format": [fmean(row.format for row in rows) for rows in samples],
    }
    means = {name: over_problems(values) for name, values in figures.items() if values}
    means["asked"] = Mean(fmean(BOX in problem.prompt for problem in found.problems))
    return Signal(len(samples), n, means, _workload(found, means["varied"].value))


@dataclass(frozen=True)
class _Graded:
    """A group. varied: rewards differ. mixed: it has right and wrong responses. paid: the right ones earn more."""

    varied: bool
    mixed: bool
    paid: bool

    @classmethod
    def of(cls, group: Sequence[EvaluatedSample], masks: bool) -> "_Graded":
        rows = [row for row in group if not (masks and _unverified(row))]
        right = [row.reward or 0.0 for row in rows if row.status == Status.CORRECT]
        wrong = [row.reward or 0.0 for row in rows if row.status != Status.CORRECT]
        mixed = bool(right and wrong)
        return cls(len({row.reward for row in rows}) > 1, mixed, mixed and fmean(right) > fmean(wrong))


def _unverified(row: EvaluatedSample) -> bool:
    return bool(row.failure) or row.status in UNVERIFIED


def _workload(found: Sampled, varied: float) -> Workload:
    lengths = [row.tokens for rows in found.samples for row in rows]
    prompts = [problem.prompt_ids for problem in found.problems]
    prompt, response = fmean(map(len, prompts)), max(fmean(lengths), 1.0)
    shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False)))
    return Workload(
        prompt=prompt,
        fresh=max(prompt - shared, 0.0),
        response=response,
        spread=pstdev(lengths) / response,
        varied=max(varied, LEAST_VARIED),
    )


def figures_in(plan: Plan, signal: Signal) -> dict[str, Mean]:
    """Return a signal's figures and, if the plan has an estimate, the useful groups in the budget."""
    if not plan.estimate:
        return {**signal.figures}
    made = plan.estimate.updates * plan.config.learner.problems_per_update
    useful = useful_in_batch(plan.config, signal)
    interval = useful.interval and (made * useful.interval[0], made * useful.interval[1])
    return {**signal.figures, "groups": Mean(made * useful.value, interval)}


def useful_in_batch(config: Config, signal: Signal) -> Mean:
    """Return the share of useful groups in a batch. Dynamic sampling replaces those whose rewards do not differ."""
    useful, kept = signal.figures["useful"], 1.0
    if config.learner.dynamic_sampling:
        kept = max(signal.figures["varied"].value, LEAST_VARIED)
    low, high = useful.interval or (useful.value, useful.value)
    return Mean(min(useful.value / kept, 1.0), useful.interval and (min(low / kept, 1.0), min(high / kept, 1.0)))


def advice(plan: Plan, signal: Signal) -> dict[str, str]:
    """Return the settings that a remedy may name, and the number of samples."""
    rollout, learner = plan.config.rollout, plan.config.learner
    longer = 2 * rollout.max_response_tokens
    tokens = max(learner.tokens_per_microbatch, rollout.max_prompt_tokens + longer)
    limits = f"rollout.max_response_tokens={longer} learner.tokens_per_microbatch={tokens}"
    return {"limits": limits, "n": str(signal.n)}


def progress(sampled: Sampled, signal: Signal) -> str:
    """Describe what is known so far on a line."""
    known = ", ".join(f"{name} {shown(name, signal.figures[name])}" for name in ("pass@1", "useful"))
    return f"{counted(signal.problems, 'problem')} after {duration(sampled.seconds)}: {known}"


def lines(plan: Plan, signal: Signal, sampled: Sampled) -> list[str]:
    """Describe a signal for a person."""
    figures, work, n = signal.figures, signal.workload, signal.n
    size = min(plan.config.rollout.samples_per_problem, n)
    found, useful = plan.estimate, useful_in_batch(plan.config, signal).value
    text = {name: shown(name, mean) for name, mean in figures.items()}
    said = [
        f"{counted(signal.problems, 'training problem')} × {n} samples in {duration(sampled.seconds)}",
        f"pass@1 {text['pass@1']}, pass@{n} {text['pass@n']}",
        f"groups of {size} with a gradient {text['varied']}, useful (right and wrong responses) {text['useful']}",
        f"unparsable {text['unparsable']}, ended before the limit {text['ended']}, think tags {text['format']},"
        f" not verified {text['unverified']}",
        f"prompts of {work.prompt:.0f} tokens, responses of {work.response:.0f} (limit"
        f" {plan.config.rollout.max_response_tokens})",
    ]
    if found and useful:
        each_s = found.update_s / plan.config.learner.problems_per_update / useful
        price = plan.config.budget.price_per_hour
        cost = "" if price is None else f" and {price * each_s / 3600:.2g}"
        said.append(f"a useful group takes the run about {duration(each_s)}{cost}")
    return said
