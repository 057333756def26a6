"""Publishes versions to the engines, and checks that they serve them."""

import asyncio
from collections import deque
from itertools import chain

from microbudget_rl.actors.adapter_check.at_start import CheckAtStart
from microbudget_rl.actors.adapter_check.at_work import CheckAfterSync
from microbudget_rl.actors.adapter_check.prompts import CheckPrompts, Responses
from microbudget_rl.actors.coordinator.context import RunContext
from microbudget_rl.actors.messages import AdapterRef


class PolicyPublisher:
    """Syncs adapters to the engines and checks each, for one incarnation of the policy."""

    def __init__(self, run: RunContext, prompts: CheckPrompts, start_check: CheckAtStart, noise: float | None) -> None:
        """noise: see `CheckAfterSync`."""
        self._engine, self._learner = run.engine, run.learner
        self._prompts, self._startup_check = prompts, start_check
        self._sync_check = CheckAfterSync(run.config.adapter_check.noise_floor, noise)
        self._outdated: AdapterRef | None = None
        self._recent = deque[AdapterRef](maxlen=run.config.learner.max_staleness + 1)
        self._responses: asyncio.Task[tuple[Responses, ...]] | None = None
        self._comparison: dict[str, float]

    @property
    def policy(self) -> AdapterRef | None:
        """The adapter that new groups are sampled from; None before the first one and after `abandon`."""
        return self._recent[-1] if self._recent else None

    @property
    def noise(self) -> float | None:
        """The difference between engine and learner that the first check measured."""
        return self._sync_check.noise

    @property
    def needed(self) -> tuple[AdapterRef, ...]:
        """The adapters that a restarted engine loads: synthetic ones, and those within a group's staleness limit."""
        return (*self._startup_check.adapters, *self._recent)

    async def adopt(self, adapter: AdapterRef) -> None:
        """Load a version, request its adapter check, and have new groups sampled from it."""
        await self._engine.load(adapter)
        self._outdated = self.policy
        self._recent.append(adapter)
        self._responses = asyncio.create_task(self._prompts.ask(self._engine, adapter))

    async def retire_outdated(self) -> None:
        """Retire the version before this one; the engines keep it until its last request has ended."""
        await asyncio.sleep(0)  # the tasks of groups that were admitted on it have called the engine by then
        outdated, self._outdated = self._outdated, None
        if outdated is not None:
            await self._engine.retire(outdated)

    async def check(self) -> dict[str, float]:
        """Compare engines and learner on the policy, once per version, and on the synthetic adapters of newly started
        engines. A cancelled call may be repeated. Raises Halted if an engine does not serve an adapter faithfully.
        """
        await self._startup_check.check()
        if self._responses is not None:
            responses = await asyncio.shield(self._responses)
            scores = await self._learner.score(tuple(chain.from_iterable(responses)))
            self._comparison = self._sync_check.compare(responses, scores)
            self._responses = None
        return self._comparison

    async def abandon(self) -> None:
        """Retire all versions. Call it once their groups are cancelled."""
        await self.close()
        await self.retire_outdated()
        policy = self.policy
        self._recent.clear()
        if policy is not None:
            await self._engine.retire(policy)

    async def close(self) -> None:
        if self._responses is not None:
            self._responses.cancel()
            await asyncio.wait({self._responses})
