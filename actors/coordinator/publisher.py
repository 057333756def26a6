"""Publishing versions to the engines, and checking that they serve them."""

import asyncio
from collections import deque

from actors.adapter_check.after_sync import CheckAfterSync, Comparison
from actors.adapter_check.at_start import CheckAtStart
from actors.adapter_check.prompts import CheckPrompts, Responses
from actors.coordinator.context import RunContext
from actors.messages import AdapterRef


class PolicyPublisher:
    """Syncs adapters to the engines and checks each, for one incarnation of the policy.

    policy: the version that new groups are sampled from; None before the first one and after `abandon`.
    """

    def __init__(self, run: RunContext, probes: CheckPrompts, startup_check: CheckAtStart, noise: float | None) -> None:
        """noise: see `CheckAfterSync`."""
        self.policy: AdapterRef | None = None
        self._engine, self._learner = run.engine, run.learner
        self._probes = probes
        self._startup_check = startup_check
        self._swap_check = CheckAfterSync(run.config.adapter_check.noise_floor, noise)
        self._outdated: AdapterRef | None = None
        self._recent = deque[AdapterRef](maxlen=run.config.learner.max_staleness + 1)
        self._probe: asyncio.Task[tuple[Responses, ...]] | None = None
        self._comparison: Comparison

    @property
    def noise(self) -> float | None:
        """The difference between engine and learner that the first check measured."""
        return self._swap_check.noise

    @property
    def needed(self) -> tuple[AdapterRef, ...]:
        """The adapters that an engine may have to load again, within the staleness limit of a running group."""
        return (*self._startup_check.adapters, *self._recent)

    async def adopt(self, adapter: AdapterRef) -> None:
        """Load a version and sample new groups from it, after its check has been requested."""
        await self._engine.load(adapter)
        self._outdated, self.policy = self.policy, adapter
        self._recent.append(adapter)
        self._probe = asyncio.create_task(self._probes.ask(self._engine, adapter))

    async def retire_outdated(self) -> None:
        """Retire the version before this one; the engines keep it until its last request has ended."""
        await asyncio.sleep(0)  # the tasks of groups that were admitted on it have called the engine by then
        outdated, self._outdated = self._outdated, None
        if outdated is not None:
            await self._engine.retire(outdated)

    async def check(self) -> Comparison:
        """Compare learner and engines on the policy, once, and on the synthetic adapters of engines started since. A
        caller that gives up waiting may ask again. Raises Halted if an adapter is not served faithfully.
        """
        await self._startup_check.check()
        if self._probe is not None:
            self._comparison = await self._swap_check.check(self._learner, await asyncio.shield(self._probe))
            self._probe = None
        return self._comparison

    async def abandon(self) -> None:
        """Retire all versions, once the groups on them are cancelled."""
        await self.close()
        await self.retire_outdated()
        policy, self.policy = self.policy, None
        if policy is not None:
            await self._engine.retire(policy)

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})
