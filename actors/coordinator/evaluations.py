"""Evaluations of a run's policies on its problems, within its budget, and the drift of the last one."""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean

from microbudget_rl.actors.adapter_check.at_work import without_effect
from microbudget_rl.actors.adapter_check.prompts import CheckPrompts
from microbudget_rl.actors.attempt import rollout_sampling
from microbudget_rl.actors.clock import cut_off
from microbudget_rl.actors.coordinator.budget import FINISH_MARGIN_S, LAST_MOMENT_S, EvaluationStep
from microbudget_rl.actors.coordinator.context import RunContext
from microbudget_rl.actors.coordinator.metrics import RunState
from microbudget_rl.actors.coordinator.rules.selection import REWARD, SCORE, Selection
from microbudget_rl.actors.coordinator.saving import Saving
from microbudget_rl.actors.errors import ActorDied, Halted, LearnerDied, root_cause
from microbudget_rl.actors.evaluation.evaluator import PolicySamples, complete_samples, part_of
from microbudget_rl.actors.evaluation.statistics import known_rewards
from microbudget_rl.actors.messages import (
    AdapterRef,
    EvaluationSet,
    Group,
    Inspection,
    Request,
    Sample,
    Status,
    request_seed,
)
from microbudget_rl.actors.storage.checkpoints import version_of
from microbudget_rl.actors.storage.documents import EntropyChange, EventKind, Plasticity, PolicyScores
from microbudget_rl.actors.storage.run_record import named

BASE_SHARE = 1 / 3
"""Largest fraction of the remaining budget that the base model's evaluation may take."""

ENOUGH_REWARDS = 0.5
"""Least fraction of the validation problems with a known reward for a version to have a score. If a judge fails for six
of ten, the mean of the other four is over other problems than the next version's."""


INSPECTED_PROBLEMS = 16
INSPECTED_TOKENS = 512
"""Number of responses in the reference set, and the most tokens of each. The learner needs a few seconds for them."""


class ReferenceSet:
    """Has the learner compare itself with its reference on the reference set, responses of the base model.

    The tokens stay the same throughout a run. All runs on the same problems sample them with the same seeds.
    plasticity: the last policy's, once it is measured.
    """

    def __init__(self, run: RunContext) -> None:
        self._run, self._engine = run, run.metered("eval")
        self._problems = (run.problems.heldout or run.problems.train)[:INSPECTED_PROBLEMS]
        self._groups: tuple[Group, ...] = ()
        self.plasticity: Plasticity | None = None

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
                inspection = await self._run.learner.inspect(self._groups)
        except (LearnerDied, TimeoutError):  # the next call to the learner raises again
            return None
        self._run.budget.expect("inspect", self._run.clock.now() - started)
        return inspection

    async def measure(self, version: int) -> None:
        """Measure `plasticity` of summary.json, unless the learner has no finite answer for this version."""
        inspection = await self.inspect()
        if inspection is None or inspection.version != version:
            return
        before, after = inspection.base_entropy, inspection.entropy
        change = after / before - 1 if before else 0.0
        by_module = (*inspection.adapter_norm.values(), *inspection.effective_rank.values())
        if all(map(math.isfinite, (before, after, change, inspection.kl_to_base, *by_module))):
            self.plasticity = Plasticity(
                probe_entropy=EntropyChange(before=before, after=after, change=change),
                kl_to_base=inspection.kl_to_base,
                adapter_norm=inspection.adapter_norm,
                effective_rank=inspection.effective_rank,
                rank=self._run.config.lora.rank,
            )

    async def _respond(self, number: int) -> Group:
        rollout = self._run.config.rollout
        tokens, seed = min(rollout.max_response_tokens, INSPECTED_TOKENS), request_seed(0, "plasticity", number)
        sampling = rollout_sampling(self._run.config, "plasticity", number, samples=1, max_tokens=tokens, seed=seed)
        return await self._engine.generate(Request(-1 - number, self._problems[number], None, sampling))


class Evaluations:
    """Evaluates policies on sets of problems. The run folder keeps the results, the budget learns the durations.

    The policies are `base`, `warm` (version 0, if that is not the base model), `final` (the result) and `last` (the
    last version, if that is not the result). The sets are the held-out problems, named "", and `eval.benchmarks`. All
    policies answer the problems that the base model had time for.

    replaceable: set unless version 0 has yet to be evaluated, and must stay the policy until then.
    """

    def __init__(self, run: RunContext, saving: Saving, run_state: RunState, prompts: CheckPrompts) -> None:
        self.replaceable = asyncio.Event()
        self.reference_set = ReferenceSet(run)
        self._run, self._saving, self._run_state, self._prompts = run, saving, run_state, prompts
        self._attempts = run.attempts("eval")
        self._heldout = (EvaluationSet("", run.config.eval.n, run.problems.heldout),)
        self._sets = (*self._heldout, *run.problems.benchmarks)

    def begin(self, version: int) -> bool:
        """Begin at a version. Return whether something is to be measured before its second batch is sampled."""
        self.replaceable.set()
        run = self._run
        if run.config.starts_apart and version == 0 and run.problems.heldout and not run.folder.tried("warm"):
            self.replaceable.clear()
        return self._base_due or not self.replaceable.is_set()

    @property
    def _base_due(self) -> bool:
        """Whether the base model has yet to be evaluated or to make the reference set."""
        folder = self._run.folder
        missing = (target for target in self._sets if target.problems and not folder.tried(named("base", target.name)))
        return folder.reference_set() is None or any(missing)

    async def start(self, policy: AdapterRef | None, idle: Callable[[], bool]) -> None:
        """Evaluate the base model and a missing version 0. idle: whether the engines have generated a batch."""
        stopping = self._run.stopping
        if self._base_due or not self.replaceable.is_set():
            await stopping.until(lambda: idle() or None)
        with self._shown("the base model") if self._base_due else nullcontext():
            await self.reference_set.sample()
            seconds = self._run.budget.left * BASE_SHARE
            self._run_state.measured("Base model", await self._evaluate("base", None, self._sets, seconds))
        warm_scores = self._run.folder.scores("warm")
        if policy and not self.replaceable.is_set():
            left = self._run.budget.left
            seconds = min(left * BASE_SHARE, left - self._run.budget.reserve)  # which is held back for the end
            with self._shown("the model at the start of reinforcement learning"):
                warm = self._evaluate("warm", policy, self._heldout, seconds)
                warm_scores = await stopping.unless_stopped(warm) or {}
            if not stopping.stopped:
                self.replaceable.set()
        self._run_state.measured("Start of reinforcement learning", warm_scores)

    @contextmanager
    def _shown(self, model: str) -> Iterator[None]:
        self._run.ledger.enter("rollouts", "evaluate")
        self._run_state.doing = f"{model} is evaluated"
        yield
        self._run.ledger.enter("rollouts", "wait_learner")
        self._run_state.doing = ""

    async def validate(self, adapter: AdapterRef, last: bool = False) -> dict[str, float]:
        """Return a version's results on the validation problems, for its row of metrics.

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
        await complete_samples(self._attempts, samples, at_once=len(problems), seconds=room)
        if not samples.rounds:
            return {}
        rows = samples.of_rounds(1)
        scores = samples.scores(rows)
        right = {row.problem: float(row.status == Status.CORRECT) for (row,) in rows}
        self._run.folder.append_solved(adapter.version, right, validation=True)
        budget.expect("validate", scores.seconds)
        figures = {SCORE: scores.pass_at_1, "validation/problems": float(len(problems))}
        if not self._run.config.reward.weighs_answers:
            rewards = known_rewards(row for (row,) in rows).values()
            figures = {"validation/problems": float(len(rewards))}
            if len(rewards) >= ENOUGH_REWARDS * len(problems):
                figures[REWARD] = fmean(rewards)
        return figures | {"validation/mean_length": scores.mean_length, "time/validate": scores.seconds}

    async def choose(self, policy: AdapterRef, validated: int | None, last: bool = True) -> Selection:
        """Validate a version, if it has a checkpoint and was not validated, and return the choice of the result: the
        end of the training may have cut off the checkpoint that was chosen before. last: whether no other follows.
        """
        folder, figures = self._run.folder, dict[str, float]()
        saved = folder.checkpoints.latest is not None and policy.version == self._saving.saved_version
        if saved and policy.version != validated:
            figures = await self.validate(policy, last)
        await folder.flush()  # the rows are read
        return await self._saving.choose(folder.extend_metrics(policy.version, figures))

    async def end(self, policy: AdapterRef, inspect: bool) -> None:
        """Evaluate the result, then the last policy if it is another, then the result on the benchmarks, as long as
        time is left, and beside them measure the last policy's plasticity.

        policy: the last one, which the engines serve. inspect: whether the learner can be inspected.
        """
        measure = self.reference_set.measure
        await asyncio.gather(self._end(policy), *([measure(policy.version)] if inspect else []))

    async def _end(self, policy: AdapterRef) -> None:
        """The adapter of a result that is not the last is loaded from its checkpoint."""
        result = self._run.folder.checkpoints.result
        result_checkpoint = result if result and version_of(result) != policy.version else None
        adapter = None if result_checkpoint else policy
        if result_checkpoint:
            async with cut_off(asyncio.timeout(self._left)):
                adapter = await self._load(result_checkpoint)
        if adapter:
            await self._evaluate("final", adapter, self._heldout, self._left)
        try:
            round_s = self._run.budget.expected(EvaluationStep()) / self._run.config.eval.n
            if result_checkpoint and self._left > round_s:
                await self._evaluate("last", policy, self._heldout, self._left)
            if adapter:
                await self._evaluate("final", adapter, self._run.problems.benchmarks, self._left)
        except* ActorDied as deaths:  # no actor is restarted any more
            rest = "what was measured is kept; launch/evaluate.py can measure the rest"
            self._run.ledger.count("warnings/evaluation")
            detail = f"{root_cause(deaths)}; {rest}"
            self._run.folder.append_event(policy.version, EventKind.CUT_OFF, detail, "evaluation")

    async def _load(self, checkpoint: Path) -> AdapterRef:
        """Have the engines serve a checkpoint's adapter. Raises Halted if one of them ignores a trained one."""
        run, version = self._run, version_of(checkpoint)
        adapter = AdapterRef(version, await run.folder.next_incarnation(), str(checkpoint / "adapter"))
        await run.engine.load(adapter)
        after = (row.metrics for row in run.folder.rows() if row.update == version + 1)  # it has this version's check
        moved = any(row.get("adapter_check/decided") for row in after)
        if moved and await without_effect(self._prompts, run.engine, adapter):
            raise Halted(f"adapter check: an engine's responses do not change with {adapter.path}")
        return adapter

    @property
    def _left(self) -> float:
        """Seconds until everything but the summary is given up."""
        return self._run.budget.left - LAST_MOMENT_S

    async def _evaluate(
        self, policy: str, adapter: AdapterRef | None, sets: Sequence[EvaluationSet], seconds: float
    ) -> dict[str, PolicyScores]:
        """Evaluate a policy on sets without a result of it, in so many seconds together. Return the results by set.

        A benchmark without a result in time is not tried again, and no other policy is evaluated on it.
        """
        folder, end = self._run.folder, self._run.clock.now() + seconds
        await folder.flush()  # the results are read
        base, by_set = folder.scores("base"), dict[str, PolicyScores]()
        for target in sets:
            name = named(policy, target.name)
            scores = folder.evaluation(name)
            if not folder.tried(name) and (policy == "base" or not target.name or target.name in base):
                scores = await self._measure(policy, target, adapter, end - self._run.clock.now())
                if target.name and not scores:
                    self._miss(policy, target, adapter)
            if scores:
                self._run.budget.expect(EvaluationStep(target.name), scores.round_seconds * target.n)
                by_set[target.name] = scores
        return by_set

    async def _measure(
        self, policy: str, target: EvaluationSet, adapter: AdapterRef | None, seconds: float
    ) -> PolicyScores | None:
        """Evaluate a policy on a set, or on its first problems if not even one round fits; None without any in time.

        A round that is not complete in time is dropped whole. No time is held back for a benchmark without a result.
        """
        if not target.problems or seconds <= 0:
            return None
        folder, name = self._run.folder, named(policy, target.name)
        base = folder.evaluation(named("base", target.name))
        problems = target.problems[: base.problems] if base else target.problems
        samples = PolicySamples(problems, target.n, adapter)
        full, expected = self._run.max_running * self._run.config.rollout.samples_per_problem, self._run.budget.expected
        round_s = expected(EvaluationStep(target.name)) / target.n
        round_s = round_s or expected("group") * max(len(problems) / full, 1.0)
        at_once = min(full, part_of(len(problems), seconds, round_s))
        await complete_samples(self._attempts, samples, at_once=at_once, seconds=seconds)
        if not (rows := samples.counted(at_once)):
            if not target.name:
                self._run.budget.expect(EvaluationStep(), seconds * target.n)
            return None
        folder.write_rows(f"eval-{name}", [row for of_round in zip(*rows, strict=True) for row in of_round])
        return folder.write_evaluation(name, adapter.version if adapter else 0, samples.scores(rows))

    def _miss(self, policy: str, benchmark: EvaluationSet, adapter: AdapterRef | None) -> None:
        """Record that there was no time for a benchmark. An empty file of samples says that it was tried."""
        folder, version = self._run.folder, adapter.version if adapter else 0
        folder.write_rows(f"eval-{named(policy, benchmark.name)}", ())
        detail = f"there was no time to evaluate the {'trained' if adapter else 'base'} model on {benchmark.name}"
        folder.append_event(version, EventKind.CUT_OFF, detail, f"evaluation on {benchmark.name}")
