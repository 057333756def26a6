"""Evaluates the policies that a run ends with: its result, and the last one where that is another."""

import asyncio
from pathlib import Path
from typing import Any

from actors.adapter_check.before_evaluation import without_effect
from actors.adapter_check.prompts import CheckPrompts
from actors.clock import cut_off
from actors.coordinator.context import RunContext
from actors.coordinator.evaluations import LAST_MOMENT_S, HeldoutEvaluations, ReferenceSet
from actors.coordinator.rules.selection import Selection
from actors.coordinator.saving import Saving
from actors.errors import ActorDied, Halted, root_cause
from actors.messages import AdapterRef
from actors.storage.checkpoints import version_of
from actors.storage.documents import EventKind


class FinalEvaluations:
    """Measures what a run returns, once its last checkpoint is written."""

    def __init__(
        self,
        run: RunContext,
        saving: Saving,
        heldout: HeldoutEvaluations,
        plasticity: ReferenceSet,
        prompts: CheckPrompts,
    ) -> None:
        self._run, self._saving = run, saving
        self._heldout, self._plasticity, self._prompts = heldout, plasticity, prompts
        self.found: dict[str, Any] = {}
        """What is measured so far, for the outcome: a stop may end it early."""

    async def choose(self, policy: AdapterRef, validated: int | None, last: bool = True) -> Selection:
        """Validate a version, if it has a checkpoint and was not validated, and return the choice of the result: the
        end of the training may have cut off the checkpoint that was chosen before. last: whether no other follows.
        """
        folder, found = self._run.folder, dict[str, float]()
        saved = folder.checkpoints.latest is not None and policy.version == self._saving.saved_version
        if saved and policy.version != validated:
            found = await self._heldout.validate(policy, last)
        await folder.flush()  # the rows are read
        return await self._saving.choose(folder.extend_metrics(policy.version, found))

    async def evaluate(self, policy: AdapterRef, inspect: bool) -> None:
        """Find the scores of the run's result, those of the last policy if it is another, the result's on the
        benchmarks, as long as time is left, and beside them the last policy's plasticity.

        policy: the last one, which the engines serve. inspect: whether the learner can be inspected.
        """
        inspection = [self._inspect(policy.version)] if inspect else []
        await asyncio.gather(self._evaluate(policy), *inspection)

    async def _inspect(self, version: int) -> None:
        self.found["plasticity"] = await self._plasticity.measure(version)

    async def _evaluate(self, policy: AdapterRef) -> None:
        """Evaluate the result, whose adapter is loaded from its checkpoint if it is not the last, and the last."""
        result = self._run.folder.checkpoints.result
        apart = result if result and version_of(result) != policy.version else None
        adapter = None if apart else policy
        if apart:
            async with cut_off(asyncio.timeout(self._run.budget.left - LAST_MOMENT_S)):
                adapter = await self._load(apart)
        if adapter:
            self.found["final"] = await self._heldout.result(adapter)
        try:
            if apart:
                self.found["last"] = await self._heldout.last(policy)
            if adapter:
                await self._heldout.exams(adapter, self.found.setdefault("exams", {}))
        except* ActorDied as deaths:
            self._cut_off(policy.version, root_cause(deaths))

    def _cut_off(self, version: int, death: BaseException) -> None:
        """Record that all is measured that can be, since an actor is not restarted any more."""
        rest = "what was measured is kept; launch/evaluate.py can measure the rest"
        self._run.ledger.count("warnings/evaluation")
        self._run.folder.append_event(version, EventKind.CUT_OFF, f"{death}; {rest}", "evaluation")

    async def _load(self, checkpoint: Path) -> AdapterRef:
        """Have the engines serve a checkpoint's adapter. Raises Halted if one of them does not use it, although the
        learner had moved from the base model by then.
        """
        run, version = self._run, version_of(checkpoint)
        adapter = AdapterRef(version, await run.folder.next_incarnation(), str(checkpoint / "adapter"))
        await run.engine.load(adapter)
        after = (row.metrics for row in run.folder.rows() if row.update == version + 1)  # it has this version's check
        moved = any(row.get("adapter_check/decided") for row in after)
        if moved and await without_effect(self._prompts, run.engine, adapter):
            raise Halted(f"adapter check: an engine's responses do not change with {adapter.path}")
        return adapter
