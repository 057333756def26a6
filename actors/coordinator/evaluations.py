"""Measurements of a run's policy: evaluations, and its drift from the base model."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from statistics import fmean

from actors.coordinator.budget import FINISH_MARGIN_S, MOST_EVALUATION
from actors.coordinator.context import RunContext
from actors.coordinator.metrics import Standing
from actors.coordinator.rules.selection import REWARD, SCORE
from actors.errors import LearnerDied
from actors.evaluation.evaluator import Evaluator, counted, part_of
from actors.evaluation.samples import PolicySamples
from actors.evaluation.statistics import known_rewards
from actors.messages import AdapterRef, Exam, Group, Inspection, Sample, Sampling
from actors.seeds import request_seed
from actors.storage.documents import EntropyChange, EventKind, Plasticity, PolicyScores
from actors.storage.run_record import named

BASE_SHARE = 1 / 3
"""Largest fraction of the remaining budget that the base model's evaluation may take."""

LAST_MOMENT_S = 2.0
"""Seconds before the end of the budget at which everything but the summary is given up."""

ENOUGH_REWARDS = 0.5
"""Fraction of the selection problems whose rewards must be known for their mean to choose: which ones fail differs."""

INSPECTED_PROBLEMS = 16
INSPECTED_TOKENS = 512
"""Number of responses in the reference set, and the most tokens of each. The learner needs a few seconds for them."""


class HeldoutEvaluations:
    """Evaluates within the budget, keeps the results in the run folder, and reports durations to the budget.

    Results are by benchmark, "" for the held-out problems. One is missing if no problem could be verified in time.
    Where the base model was evaluated on the first problems only, so are all other policies.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._evaluator = Evaluator(run.config, run.metered("eval"), run.verifier, run.clock)
        self._heldout = Exam("", run.config.eval.n, run.problems.heldout)
        self._sample_s = 0.0  # seconds per sample of the last evaluation

    @property
    def base_due(self) -> bool:
        """Whether the base model has yet to be evaluated, on benchmarks also where the time did not suffice before."""
        folder, exams = self._run.folder, self._run.problems.exams
        return self.due("base") or any(not folder.tried(named("base", exam.name)) for exam in exams)

    def due(self, policy: str) -> bool:
        """Whether the held-out result of `base` or `warm` is missing."""
        return bool(self._heldout.problems) and self._run.folder.evaluation(policy) is None

    async def base(self) -> dict[str, PolicyScores]:
        """Evaluate the base model, once per run: on the held-out problems, then on the benchmarks.

        A benchmark without a result leaves an empty file of samples: it is not tried again after a setback.
        """
        folder, now = self._run.folder, self._run.clock.now
        found, end = folder.scores("base"), now() + self._run.budget.left * BASE_SHARE
        for exam in (self._heldout, *self._run.problems.exams):
            name = named("base", exam.name)
            if exam.name in found:
                self._learn(exam, found[exam.name])
            elif exam.name and folder.tried(name):
                continue
            elif scores := await self._measure("base", exam, None, end - now()):
                found[exam.name] = scores
            elif exam.name:
                folder.write_rows(f"eval-{name}", ())
                self._miss(exam, "base", 0)
        return found

    async def warm(self, adapter: AdapterRef) -> PolicyScores | None:
        """Evaluate version 0 where it is not the base model, without the time that is held back for the end."""
        budget = self._run.budget
        seconds = min(budget.left * BASE_SHARE, budget.left - budget.reserve)
        enough = seconds > budget.expected("evaluate") / self._run.config.eval.n
        return await self._measure("warm", self._heldout, adapter, seconds) if enough else None

    async def result(self, adapter: AdapterRef) -> PolicyScores | None:
        """Evaluate the policy that the run returns on the held-out problems, in the rest of the budget."""
        return await self._measure("final", self._heldout, adapter, self._run.budget.left - LAST_MOMENT_S)

    async def exams(self, adapter: AdapterRef, found: dict[str, PolicyScores]) -> None:
        """Evaluate it on the benchmarks that have a result of the base model, and add each result by name."""
        await self._run.folder.flush()  # the base model's results are read
        base = self._run.folder.scores("base")
        for exam in self._run.problems.exams:
            left = self._run.budget.left - LAST_MOMENT_S
            if exam.name in base and (scores := await self._measure("final", exam, adapter, left)):
                found[exam.name] = scores
            elif exam.name in base:
                self._miss(exam, "trained", adapter.version)

    async def last(self, adapter: AdapterRef) -> PolicyScores | None:
        """Evaluate the last policy on the held-out problems, if the rest of the budget should hold at least a round."""
        left, round_s = self._run.budget.left - LAST_MOMENT_S, self._run.budget.expected("evaluate") / self._heldout.n
        return await self._measure("last", self._heldout, adapter, left) if left > round_s else None

    async def validate(self, adapter: AdapterRef, last: bool = False) -> dict[str, float]:
        """Return a version's results on the selection problems, for its row of metrics.

        Empty if this version is not due, or if time is short: see `validation.share`, and the reserve. last: whether
        no other version follows, and the last checkpoint is written; no fraction of the time limits this one.
        """
        settings, budget, problems = self._run.config.validation, self._run.budget, self._run.problems.selection
        if not problems or (adapter.version % settings.every and not last):
            return {}
        taken = self._run.ledger.seconds.get("learner", {}).get("validate", 0.0)
        affordable = last or taken + budget.expected("validate") <= settings.share * budget.spent
        room = budget.left - (budget.evaluation_reserve + FINISH_MARGIN_S if last else budget.reserve)
        if not (affordable or self._run.config.run.deterministic) or room <= budget.expected("validate"):
            return {}
        self._run.ledger.enter("learner", "validate")
        samples = PolicySamples(problems, 1, adapter)
        await self._evaluator.evaluate(samples, at_once=len(problems), seconds=room)
        if not samples.rounds:
            return {}
        rows = samples.of_rounds(1)
        found = samples.scores(rows)
        budget.expect("validate", found.seconds)
        figures = {SCORE: found.pass_at_1, "validation/problems": float(len(problems))}
        if not self._run.config.reward.weighs_answers:
            rewards = known_rewards(row for (row,) in rows).values()
            figures = {"validation/problems": float(len(rewards))}
            if len(rewards) >= ENOUGH_REWARDS * len(problems):
                figures[REWARD] = fmean(rewards)
        return figures | {"validation/mean_length": found.mean_length, "time/validate": found.seconds}

    async def _measure(self, name: str, exam: Exam, adapter: AdapterRef | None, seconds: float) -> PolicyScores | None:
        """Evaluate a policy on problems, or on the first of them if not even one round fits.

        A round that is not complete in time is dropped whole. No time is held back for a benchmark without a result.
        """
        if not exam.problems or seconds <= 0:
            return None
        folder, problems = self._run.folder, exam.problems
        if name != "base":
            await folder.flush()  # the base model's result is read
            base = folder.evaluation(named("base", exam.name))
            problems = problems[: base.problems] if base else problems
        samples = PolicySamples(problems, exam.n, adapter)
        round_s = self._run.budget.expected(named("evaluate", exam.name)) / exam.n or self._sample_s * len(problems)
        waves = len(problems) / (self._run.max_running * self._run.config.rollout.samples_per_problem)
        round_s = round_s or self._run.budget.expected("group") * max(waves, 1.0)
        at_once = part_of(len(problems), seconds, round_s)
        await self._evaluator.evaluate(samples, at_once=at_once, seconds=seconds)
        if not (rows := counted(samples, at_once)):
            if not exam.name:
                self._run.budget.expect("evaluate", seconds * exam.n)
            return None
        found, name = samples.scores(rows), named(name, exam.name)
        self._learn(exam, found)
        folder.write_rows(f"eval-{name}", [row for of_round in zip(*rows, strict=True) for row in of_round])
        return folder.write_evaluation(name, adapter.version if adapter else 0, found)

    def _learn(self, exam: Exam, found: PolicyScores) -> None:
        self._sample_s = found.round_seconds / found.problems
        self._run.budget.expect(named("evaluate", exam.name), found.round_seconds * exam.n)

    def _miss(self, exam: Exam, model: str, version: int) -> None:
        """Record that there was no time for a benchmark, and a budget that should hold all evaluations."""
        run, exams = self._run, (self._heldout, *self._run.problems.exams)
        seconds = self._sample_s * sum(each.n * len(each.problems) for each in exams)
        start_s = run.ledger.record.start_s + run.budget.expected("group")
        whole_s = max(start_s + seconds / BASE_SHARE, seconds / MOST_EVALUATION, run.budget.total + 60)
        hint = f": budget.minutes={math.ceil(whole_s / 60)} should hold it" if seconds else ""
        detail = f"there was no time to evaluate the {model} model on {exam.name}{hint}"
        run.folder.append_event(version, EventKind.CUT_OFF, detail, f"evaluation on {exam.name}")


class ReferenceSet:
    """Has the learner compare itself with its reference on the reference set, responses of the base model.

    The tokens stay the same throughout a run. All runs on the same problems sample them with the same seeds.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._engine = run.metered("eval")
        self._problems = (run.problems.heldout or run.problems.train)[:INSPECTED_PROBLEMS]
        self._groups: tuple[Group, ...] = ()

    async def sample(self) -> None:
        """Sample the reference set, or read it if the run has one."""
        if (responses := self._run.folder.reference_set()) is None:
            sampled = await asyncio.gather(*(self._respond(number) for number in range(len(self._problems))))
            responses = [list(group.samples[0].token_ids) for group in sampled]
            self._run.folder.write_reference_set(responses)
        self._groups = tuple(
            Group(-1 - number, problem, None, (Sample(tuple(ids), (), "", "stop"),))
            for number, (problem, ids) in enumerate(zip(self._problems, responses, strict=True))
        )

    async def inspect(self) -> Inspection | None:
        """Return the learner's measurements on the reference set; None if it crashes or would exceed the budget."""
        if not self._groups:
            return None
        started = self._run.clock.now()
        try:
            async with asyncio.timeout(self._run.budget.left - LAST_MOMENT_S):
                found = await self._run.learner.inspect(self._groups)
        except (LearnerDied, TimeoutError):  # the next call to the learner raises again
            return None
        self._run.budget.expect("inspect", self._run.clock.now() - started)
        return found

    async def measure(self, version: int) -> Plasticity | None:
        """Return `plasticity` of summary.json; None if the learner has no finite answer for this version."""
        found = await self.inspect()
        if found is None or found.version != version:
            return None
        before, after = found.base_entropy, found.entropy
        change = after / before - 1 if before else 0.0
        by_module = (*found.adapter_norm.values(), *found.effective_rank.values())
        if not all(map(math.isfinite, (before, after, change, found.kl_to_base, *by_module))):
            return None
        return Plasticity(
            probe_entropy=EntropyChange(before=before, after=after, change=change),
            kl_to_base=found.kl_to_base,
            adapter_norm=found.adapter_norm,
            effective_rank=found.effective_rank,
            rank=self._run.config.lora.rank,
        )

    async def _respond(self, number: int) -> Group:
        rollout = self._run.config.rollout
        tokens, seed = min(rollout.max_response_tokens, INSPECTED_TOKENS), request_seed(0, "plasticity", number)
        sampling = Sampling(1, tokens, rollout.temperature, top_p=1.0, seed=seed)
        return await self._engine.generate(-1 - number, self._problems[number], None, sampling)


class StartEvaluations:
    """Measures the models that reinforcement learning starts from: the base model, and version 0 if it is another,
    after a warm start or with `lora.start_from`.

    replaceable: set unless version 0 has yet to be evaluated, and must stay the policy until then.
    """

    def __init__(
        self, run: RunContext, heldout: HeldoutEvaluations, plasticity: ReferenceSet, standing: Standing
    ) -> None:
        self.replaceable = asyncio.Event()
        self._run, self._heldout, self._plasticity, self._standing = run, heldout, plasticity, standing

    def begin(self, version: int) -> bool:
        """Begin at a version. Return whether something is to be measured before its second batch is sampled."""
        self.replaceable.set()
        if self._run.config.starts_apart and version == 0 and self._heldout.due("warm"):
            self.replaceable.clear()
        return self._base_due or not self.replaceable.is_set()

    @property
    def _base_due(self) -> bool:
        """Whether the base model has yet to be evaluated or to make the reference set."""
        return self._heldout.base_due or self._run.folder.reference_set() is None

    async def measure(self, policy: AdapterRef | None, idle: Callable[[], bool]) -> None:
        """Measure what is missing, or read the results. idle: whether the engines have generated the first batch."""
        stopping = self._run.stopping
        if self._base_due or not self.replaceable.is_set():
            await stopping.until(lambda: idle() or None)
        await self.base()
        found = self._run.folder.evaluation("warm")
        if policy and not self.replaceable.is_set():
            with self._evaluating("the model at the start of reinforcement learning"):
                found = await stopping.unless_stopped(self._heldout.warm(policy))
            if not stopping.stopped:
                self.replaceable.set()
        self._standing.measured("Start of reinforcement learning", {"": found} if found else {})

    async def base(self) -> None:
        """Evaluate the base model and sample the reference set, or read the results if there are any."""
        with self._evaluating("the base model") if self._base_due else nullcontext():
            await self._plasticity.sample()
            self._standing.measured("Base model", await self._heldout.base())

    @contextmanager
    def _evaluating(self, model: str) -> Iterator[None]:
        self._run.ledger.enter("rollouts", "evaluate")
        self._standing.doing = f"{model} is evaluated"
        yield
        self._run.ledger.enter("rollouts", "wait_learner")
        self._standing.doing = ""
