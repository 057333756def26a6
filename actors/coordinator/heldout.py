"""Held-out evaluations in the life of a run: of the base model, while training, and of the last policy."""

from statistics import fmean
from typing import Any

from actors.coordinator.budget import Budget
from actors.coordinator.ledger import Ledger
from actors.evaluation.evaluator import Evaluation, Evaluator
from actors.messages import AdapterRef, Problem
from actors.protocols import Clock, Engine, Verifier
from actors.storage.run_folder import RunFolder
from conf.schema import Config

BASE_SHARE = 1 / 3
"""Most of the time left that the evaluation of the base model may take."""

LAST_MOMENT_S = 2.0
"""Seconds before the end of the budget at which everything but the summary is given up."""


class HeldoutEvaluations:
    """Evaluates, keeps the results in the run folder, and has the budget learn what it takes."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        verifier: Verifier,
        heldout: tuple[Problem, ...],
        folder: RunFolder,
        budget: Budget,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._config = config
        self._engine = engine
        self._evaluator = Evaluator(config, engine, verifier, clock)
        self._heldout = heldout
        self._folder = folder
        self._budget = budget
        self._ledger = ledger
        self._clock = clock

    async def base(self) -> dict[str, Any] | None:
        """Held-out pass@1 of the base model, once in a run; None if nothing could be judged, as everywhere here."""
        await self._engine.ready()
        known = self._folder.evaluation("base")
        if known is not None:
            self._learn(known["round_seconds"])
            return known
        return await self._judge("base", None, 0, self._budget.left * BASE_SHARE)

    async def final(self, adapter: AdapterRef) -> dict[str, Any] | None:
        """Held-out pass@1 of the last policy, with what is left of the budget."""
        return await self._judge("final", adapter, adapter.version, self._budget.left - LAST_MOMENT_S)

    async def validate(self, adapter: AdapterRef) -> dict[str, float]:
        """A version's figures on the validation problems, for its row of metrics; empty if it is not its turn.

        It is not where validations would take more than their share of the time spent, or of the reserve.
        """
        settings = self._config.validation
        problems = self._heldout[: settings.problems]
        if not settings.every or adapter.version % settings.every or not problems:
            return {}
        taken = self._ledger.seconds.get("learner", {}).get("validate", 0.0)
        affordable = taken + self._budget.expected("validate") <= settings.share * self._budget.spent
        if not affordable or not self._budget.allows("validate"):
            return {}
        self._ledger.enter("learner", "validate")
        result = await self._draw(problems, adapter, 1, self._budget.left - self._budget.reserve, 0.0)
        if result is None or result.problems < len(problems):
            return {}
        self._budget.expect("validate", result.seconds)
        return {
            "validation/pass@1": result.pass_at[1],
            "validation/mean_length": result.mean_length,
            "time/validate": result.seconds,
        }

    async def _judge(
        self, name: str, adapter: AdapterRef | None, version: int, seconds: float
    ) -> dict[str, Any] | None:
        if not self._heldout:
            return None
        result = await self._draw(self._heldout, adapter, self._config.eval.n, seconds, self._budget.expected("round"))
        if result is None:
            self._learn(seconds)
            return None
        self._learn(result.round_seconds)
        self._folder.write_samples(f"eval-{name}", result.groups)
        return self._folder.write_evaluation(name, version, result.summary() | self._as_validation(result))

    def _as_validation(self, result: Evaluation) -> dict[str, float]:
        """What a validation would have found: it draws what the first round of an evaluation draws."""
        count = min(self._config.validation.problems, len(self._heldout))
        if not self._config.validation.every or result.problems < count:
            return {}
        return {"validation/pass@1": fmean(group.rewards[0].verdict.score for group in result.groups[:count])}

    async def _draw(
        self, problems: tuple[Problem, ...], adapter: AdapterRef | None, n: int, seconds: float, round_s: float
    ) -> Evaluation | None:
        deadline = self._clock.now() + seconds
        return await self._evaluator.evaluate(problems, adapter, n, deadline, round_s)

    def _learn(self, round_seconds: float) -> None:
        """Learn how long a round takes, and so the final evaluation."""
        self._budget.expect("round", round_seconds)
        self._budget.expect("evaluate", round_seconds * self._config.eval.n)
