"""Measurements of a run's policy: held-out evaluations, and how far the model has moved."""

import asyncio
from statistics import fmean
from typing import Any

from actors.coordinator.context import RunContext
from actors.errors import LearnerDied
from actors.evaluation.evaluator import Evaluation, Evaluator
from actors.messages import AdapterRef, Group, Inspection, Sample, Sampling
from actors.seeds import request_seed

BASE_SHARE = 1 / 3
"""Largest fraction of the time left for the evaluation of the base model."""

LAST_MOMENT_S = 2.0
"""Seconds before the end of the budget at which everything but the summary is cancelled."""

INSPECTED_PROBLEMS = 16
INSPECTED_TOKENS = 512
"""Number of inspected responses, and most tokens of each: a few seconds of the learner at the sizes of a budget."""


class HeldoutEvaluations:
    """Evaluates within the budget, keeps the results in the run folder, and tells the budget how long it took.

    A result is None where there are no held-out problems, or none of them could be verified in time.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._evaluator = Evaluator(run.config, run.metered("eval"), run.verifier, run.clock)
        self._heldout = run.problems.heldout

    async def base(self) -> dict[str, Any] | None:
        """Evaluate the base model, once in a run."""
        await self._run.engine.ready()
        if (known := self._run.folder.evaluation("base")) is not None:
            self._learn(known["round_seconds"])
            return known
        return await self._evaluate("base", None, self._run.budget.left * BASE_SHARE)

    async def final(self, adapter: AdapterRef) -> dict[str, Any] | None:
        return await self._evaluate("final", adapter, self._run.budget.left - LAST_MOMENT_S)

    async def validate(self, adapter: AdapterRef) -> dict[str, float]:
        """Return a version's figures on the validation problems, for its row of metrics.

        Empty if no validation is due, or if validations would take more than their share of the time spent, or any of
        the reserve.
        """
        settings, budget = self._run.config.validation, self._run.budget
        problems = self._heldout[: settings.problems]
        if not settings.every or adapter.version % settings.every or not problems:
            return {}
        taken = self._run.ledger.seconds.get("learner", {}).get("validate", 0.0)
        affordable = taken + budget.expected("validate") <= settings.share * budget.spent
        if not (affordable or self._run.config.run.deterministic) or not budget.allows("validate"):
            return {}
        self._run.ledger.enter("learner", "validate")
        result = await self._evaluator.evaluate(problems, adapter, 1, budget.left - budget.reserve)
        if result is None or result.problems < len(problems):
            return {}
        budget.expect("validate", result.seconds)
        return {
            "validation/pass@1": result.pass_at[1],
            "validation/mean_length": result.mean_length,
            "time/validate": result.seconds,
        }

    async def _evaluate(self, name: str, adapter: AdapterRef | None, seconds: float) -> dict[str, Any] | None:
        if not self._heldout:
            return None
        n, round_s = self._run.config.eval.n, self._run.budget.expected("round")
        result = await self._evaluator.evaluate(self._heldout, adapter, n, seconds, round_s)
        self._learn(result.round_seconds if result else seconds)
        if result is None:
            return None
        self._run.folder.write_samples(f"eval-{name}", result.groups)
        version, summary = adapter.version if adapter else 0, result.summary() | self._as_validation(result)
        return self._run.folder.write_evaluation(name, version, summary)

    def _as_validation(self, result: Evaluation) -> dict[str, float]:
        """Return a validation's figure: it has the same samples as the first round of an evaluation."""
        settings = self._run.config.validation
        count = min(settings.problems, len(self._heldout))
        if not settings.every or result.problems < count:
            return {}
        return {"validation/pass@1": fmean(group.rewards[0].verdict.score for group in result.groups[:count])}

    def _learn(self, round_seconds: float) -> None:
        self._run.budget.expect("round", round_seconds)
        self._run.budget.expect("evaluate", round_seconds * self._run.config.eval.n)


class Plasticity:
    """Samples responses of the base model once in a run, and has the learner compare itself with the base on them.

    The tokens are the same before and after. All runs on the same problems sample them with the same seeds.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._engine = run.metered("eval")
        self._problems = (run.problems.heldout or run.problems.train)[:INSPECTED_PROBLEMS]
        self._groups: tuple[Group, ...] = ()

    async def sample(self) -> None:
        """Get the base model's responses, or those sampled by an earlier process."""
        if (responses := self._run.folder.probe()) is None:
            await self._run.engine.ready()
            sampled = await asyncio.gather(*(self._respond(number) for number in range(len(self._problems))))
            responses = [list(group.samples[0].token_ids) for group in sampled]
            self._run.folder.write_probe(responses)
        self._groups = tuple(
            Group(-1 - number, problem, None, (Sample(tuple(ids), (), "", "stop"),))
            for number, (problem, ids) in enumerate(zip(self._problems, responses, strict=True))
        )

    async def inspect(self) -> Inspection | None:
        """Return the learner's measures on the responses; None if it crashed or takes longer than the budget. The
        reserve learns from its duration.
        """
        if not self._groups:
            return None
        started = self._run.clock.now()
        try:
            async with asyncio.timeout(self._run.budget.left - LAST_MOMENT_S):
                found = await self._run.learner.inspect(self._groups)
        except (LearnerDied, TimeoutError):  # the next call to the learner raises it again
            return None
        self._run.budget.expect("inspect", self._run.clock.now() - started)
        return found

    async def measure(self, version: int) -> dict[str, Any] | None:
        """Return `plasticity` of summary.json; None if the learner does not answer, or not for this version."""
        found = await self.inspect()
        if found is None or found.version != version:
            return None
        return {
            "probe_entropy": {
                "before": found.base_entropy,
                "after": found.entropy,
                "change": found.entropy / found.base_entropy - 1 if found.base_entropy else 0.0,
            },
            "kl_to_base": found.kl_to_base,
            "adapter_norm": found.adapter_norm,
            "effective_rank": found.effective_rank,
            "rank": self._run.config.lora.rank,
        }

    async def _respond(self, number: int) -> Group:
        rollout = self._run.config.rollout
        sampling = Sampling(
            samples=1,
            max_tokens=min(rollout.max_response_tokens, INSPECTED_TOKENS),
            temperature=rollout.temperature,
            top_p=1.0,
            seed=request_seed(0, "plasticity", number),
        )
        return await self._engine.generate(-1 - number, self._problems[number], None, sampling)
