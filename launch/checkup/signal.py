"""Samples training problems as a run would, and says what a run could learn from them."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev

from actors.adapter_check.before_evaluation import check_before_evaluation
from actors.clock import WallClock
from actors.evaluation.evaluator import Evaluator, PolicySamples
from actors.evaluation.statistics import FEWEST, UNVERIFIED, Mean, Samples, correct, pass_at, share_interval
from actors.formats import duration
from actors.messages import AdapterRef, Group, Problem, Reward, Sample, Status
from actors.protocols import Verifier
from actors.runtime.supervision import Record
from actors.storage.documents import EvaluatedSample
from conf.errors import BadInput, printable
from conf.schema import Config
from conf.schema.signal import SignalConfig
from conf.settings import changed
from launch.checkup.measurement import started_engines
from launch.checkup.rules import Figures, shown
from launch.plan.calibration import LEAST_VARIED
from launch.plan.measurements import Signal
from launch.plan.plan import Plan
from launch.plan.time import Workload
from rewards.verify.text.extraction import BOX
from rewards.weighted_sum import reward_function

PARTS = 10
"""Parts in which problems are sampled, each with a line of progress, the first one with as many, and maybe the end."""

AT_A_LOOK = 0.9894
"""Confidence of an interval after one part, with which those after ten parts hold together in 95 % of the cases:
Pocock 1977 (Biometrika 64, 191)."""


COMMONEST = 5
"""Most ways to fail that are shown."""

SHOWN = 100
"""Characters shown of the beginning of a text, and of its end."""


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
    """Start engines and verifier like a run, on a running Ray. Sample part after part while `go_on` returns true.

    If the time ends in the first part, its whole groups count. Raises BadInput if it is too short for one group of each
    problem.
    """
    from launch.session.actors import start_verifier

    rollout, start, clock = plan.config.rollout, plan.config.lora.start_from, WallClock()
    as_trained = {"temperature": rollout.temperature, "top_p": 1.0, "max_response_tokens": None}
    config = changed(plan.config, {f"eval.{key}": value for key, value in as_trained.items()})
    size = rollout.samples_per_problem
    n = math.ceil(asked.samples / size) * size
    problems, rows = problems[: asked.problems], list[list[EvaluatedSample]]()

    def progressed() -> None:
        if not rows and policy.sampled % math.ceil((total := n * len(policy.problems)) / PARTS) == 0:
            print(f"{policy.sampled} of {total} responses to the first problems", flush=True)

    async with AsyncExitStack() as stack:
        engines, _, placement = await stack.enter_async_context(started_engines(plan, model_path, clock, record))
        verifier = start_verifier(reward_function(config), placement, clock=clock, record=record)
        stack.push_async_callback(verifier.close)
        await engines.ready()
        if adapter := AdapterRef(0, 0, str(Path(start).resolve())) if start else None:
            await engines.load(adapter)
            await check_before_evaluation(config, engines, adapter, tuple(problems))
        at_once = rollout.concurrent_samples * len(placement.rollouts)
        part = max(math.ceil(len(problems) / PARTS), math.ceil(at_once / n))
        evaluator, began = Evaluator(config, engines, verifier, clock), clock.now()
        while len(rows) < len(problems):
            policy = PolicySamples(tuple(problems[len(rows) : len(rows) + part]), n, adapter)
            left_s = 60 * asked.minutes + began - clock.now()
            await evaluator.evaluate(policy, at_once=at_once, seconds=left_s, on_sample=progressed)
            if policy.rounds == n or not rows:  # else the samples that there are would be the short ones
                new = zip(policy.problems, policy.of_rounds(policy.rounds - policy.rounds % size), strict=True)
                again = bool(config.reward.custom)
                rows += [await in_groups(verifier, *each, size) if again else each[1] for each in new]
            if not rows[0]:
                first, wanted = policy.first_round, size * len(policy.problems)
                right = sum(row.status == Status.CORRECT for [row] in first)
                needed = math.ceil(2 * asked.minutes * wanted / max(policy.sampled, size))  # the short ones end first
                known = f"{policy.sampled} of {wanted} responses ended, {right} of the first {len(first)} right"
                raise BadInput(f"signal.minutes={asked.minutes:g}: {known}; give signal.minutes={needed}")
            found = Sampled(problems[: len(rows)], rows, clock.now() - began)
            if policy.rounds < n or not go_on(found):
                break
        return found


async def in_groups(
    verifier: Verifier, problem: Problem, rows: Sequence[EvaluatedSample], size: int
) -> list[EvaluatedSample]:
    """Return samples with their rewards in groups of the run's size, whose samples a user's function may compare."""
    rewards = list[Reward]()
    for at in range(0, len(rows), size):
        asked = (Sample(range(row.tokens), (), row.response, row.finish_reason) for row in rows[at : at + size])
        rewards += (await verifier.score(Group(0, problem, None, tuple(asked)))).rewards
    found = ({"reward": one.total, "failure": one.complaint or one.failure, "partial": one.partial} for one in rewards)
    return [row.model_copy(update=values) for row, values in zip(rows, found, strict=True)]


def signal_of(found: Sampled, config: Config) -> Signal:
    """Return the figures of samples, by the names in docs/how-to/is-it-worth-it.md."""
    samples, n = found.samples, len(found.samples[0])
    size = config.rollout.samples_per_problem
    graded = [[_grade(rows[at : at + size], config) for at in range(0, n, size)] for rows in samples]
    ended = [[row for row in rows if row.finish_reason != "length"] for rows in samples]
    passed = pass_at(correct(samples), n)
    figures = {
        "pass@1": passed["pass@1"],
        "pass@n": passed[f"pass@{n}"],
        "varied": [fmean(varied for varied, _, _ in groups) for groups in graded],
        "useful": [fmean(useful for _, useful, _ in groups) for groups in graded],
        "paid": [fmean(known) for of in graded if (known := [paid for _, _, paid in of if paid is not None])],
        "unverified": [fmean(map(_unverified, rows)) for rows in samples],
        "unparsable": [fmean(map(_unparsable, rows)) for rows in samples],
        "ended": [len(rows) / n for rows in ended],
        "unboxed": [fmean(map(_unparsable, rows)) for rows in ended if rows],
        "format": [fmean(row.format for row in rows) for rows in samples],
    }
    enough = {name: values for name, values in figures.items() if len(values) >= min(FEWEST, len(samples))}
    means = {name: Mean(fmean(values), share_interval(values, AT_A_LOOK)) for name, values in enough.items()}
    means["asked"] = Mean(fmean(BOX in problem.prompt for problem in found.problems))
    return Signal(len(samples), n, means, _workload(found, means["varied"].value))


def _grade(group: Sequence[EvaluatedSample], config: Config) -> tuple[bool, bool, bool | None]:
    """Return whether a group's rewards differ, whether it is useful, and, if it has right and wrong responses and the
    reward weighs accuracy, whether the right ones earn more.
    """
    weighed = config.reward.weighs_answers
    rows = [row for row in group if config.reward.timeout != "mask" or not _unverified(row)]
    right = [row.reward or 0.0 for row in rows if row.status == Status.CORRECT]
    wrong = [row.reward or 0.0 for row in rows if row.status != Status.CORRECT]
    varied, mixed = len({*right, *wrong}) > 1, bool(right and wrong)
    return varied, varied and (mixed or not weighed), fmean(right) > fmean(wrong) if mixed and weighed else None


def _unverified(row: EvaluatedSample) -> bool:
    return bool(row.failure) or row.status in UNVERIFIED


def _unparsable(row: EvaluatedSample) -> bool:
    return row.status == Status.UNPARSABLE


def _workload(found: Sampled, varied: float) -> Workload:
    lengths = [row.tokens for rows in found.samples for row in rows]
    prompts = [problem.prompt_ids for problem in found.problems]
    shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False)))
    prompt, response = fmean(map(len, prompts)), fmean(lengths)
    return Workload(prompt, prompt - shared, response, pstdev(lengths) / response, max(varied, LEAST_VARIED))


def figures_in(plan: Plan, signal: Signal) -> Figures:
    """Return a signal's figures and, if the plan has an estimate, the useful groups in the budget. Dynamic sampling
    replaces groups whose rewards do not differ.
    """
    if not plan.estimate:
        return signal.figures
    useful, learner = signal.figures["useful"], plan.config.learner
    kept = max(signal.figures["varied"].value, LEAST_VARIED) if learner.dynamic_sampling else 1.0
    made = plan.estimate.updates * learner.problems_per_update / kept
    interval = useful.interval and (made * useful.interval[0], made * useful.interval[1])
    return {**signal.figures, "groups": Mean(made * useful.value, interval)}


def lines(plan: Plan, signal: Signal, figures: Figures, seconds: float) -> list[str]:
    """Describe a signal for a person."""
    text = {name: shown(name, mean) for name, mean in figures.items()}
    work, rollout, price, n = signal.workload, plan.config.rollout, plan.config.budget.price_per_hour, signal.n
    said = [
        f"{signal.problems} training problems × {n} samples in {duration(seconds)}",
        f"pass@1 {text['pass@1']}, pass@{n} {text['pass@n']}",
        f"groups of {rollout.samples_per_problem} with a gradient: {text['varied']}; useful ones: {text['useful']}"
        f"{', with right and wrong responses' if plan.config.reward.weighs_answers else ''}",
        f"unparsable {text['unparsable']}, cut off at the limit {1 - figures['ended'].value:.1%}, think tags"
        f" {text['format']}, not verified {text['unverified']}",
        f"prompts of {work.prompt:.0f} tokens, responses of {work.response:.0f} (limit {rollout.max_response_tokens})",
    ]
    if plan.estimate and figures["groups"].value:
        each_s = plan.estimate.updates * plan.estimate.update_s / figures["groups"].value
        cost = "" if price is None else f" and costs {price * each_s / 3600:.2g}"
        said.append(f"a useful group takes the run about {duration(each_s)}{cost}")
    return said


def longer(plan: Plan) -> str:
    """Return the setting for responses of twice the length, or as long as the model's context allows."""
    rollout, context = plan.config.rollout, plan.shape.max_position_embeddings
    tokens = min(2 * rollout.max_response_tokens, context - rollout.max_prompt_tokens)
    if tokens <= rollout.max_response_tokens:
        return "a model with a longer context"
    return f"rollout.max_response_tokens={tokens}"


def commonest(samples: Samples) -> Iterator[str]:
    """Yield a line for each of the commonest ways to fail: how many of the responses, and the first such sample."""
    ways = defaultdict[str, list[EvaluatedSample]](list)
    rows = [row for of_problem in samples for row in of_problem]
    for row in rows:
        if way := way_to_fail(row):
            ways[way].append(row)
    for way, failed in sorted(ways.items(), key=lambda item: -len(item[1]))[:COMMONEST]:
        row = failed[0]
        yield (
            f"{len(failed) / len(rows):.1%} {way}: {_short(row.prompt, 0)} → {_short(row.response)}"
            f" (reference answer {_short(row.gold)})"
        )


def way_to_fail(row: EvaluatedSample) -> str:
    """Return how a response failed, empty for a right one."""
    if row.failure:
        return f"the reward function failed: {_short(row.failure.partition(', on problem ')[0])}"
    cut = row.finish_reason == "length"
    match row.status:
        case Status.CORRECT:
            return ""
        case Status.UNPARSABLE if row.extracted:
            return f"an answer that cannot be read{', cut off at the limit' if cut else ''}"
        case Status.UNPARSABLE:
            return "cut off at the limit without an answer" if cut else "ended without an answer in a box"
        case Status.WRONG:
            return f"a wrong answer{', cut off at the limit' if cut else ''}"
    return f"verifier: {row.status}"


def _short(text: str, head: int = SHOWN) -> str:
    """Return a text on one line, as it may be shown on any screen. head: characters of its beginning to show."""
    return printable(text if len(text) <= head + SHOWN else f"{text[:head]}… {text[-SHOWN:]}")
