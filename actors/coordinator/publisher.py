"""The version that new groups are sampled from, and whether the engines truly serve it."""

import asyncio
from collections import deque

from actors.adapter_check.after_sync import Comparison, SwapCheck
from actors.adapter_check.at_start import StartupCheck
from actors.adapter_check.prompts import Probes, Responses
from actors.coordinator.context import RunContext
from actors.messages import AdapterRef


class PolicyPublisher:
    """Swaps adapters in the engines and checks each, for one incarnation of the policy.

    policy: the version that new groups are sampled from; None before the first one and after `abandon`.
    """

    def __init__(self, run: RunContext, probes: Probes, startup_check: StartupCheck, noise: float | None) -> None:
        """noise: see `SwapCheck`."""
        self.policy: AdapterRef | None = None
        self._engine, self._learner = run.engine, run.learner
        self._probes = probes
        self._startup_check = startup_check
        self._swap_check = SwapCheck(run.config.canary.noise_floor, noise)
        self._outdated: AdapterRef | None = None
        self._recent = deque[AdapterRef](maxlen=run.config.learner.max_staleness + 1)
        self._probe: asyncio.Task[tuple[Responses, ...]] | None = None
        self._comparison: Comparison

    @property
    def noise(self) -> float | None:
        """What the first check measured between engine and learner."""
        return self._swap_check.noise

    @property
    def needed(self) -> tuple[AdapterRef, ...]:
        """The adapters that an engine may have to load again: no running group is older than the staleness limit."""
        return (*self._startup_check.adapters, *self._recent)

    async def adopt(self, adapter: AdapterRef) -> None:
        """Load a version and make it the one new groups are sampled from; the probes come first."""
        await self._engine.load(adapter)
        self._outdated, self.policy = self.policy, adapter
        self._recent.append(adapter)
        self._probe = asyncio.create_task(self._probes.ask(self._engine, adapter))

    async def retire_outdated(self) -> None:
        """Retire the version before this one; the engines keep it until the last of its requests has ended."""
        await asyncio.sleep(0)  # the tasks of groups that were admitted on it have called the engine by then
        outdated, self._outdated = self._outdated, None
        if outdated is not None:
            await self._engine.retire(outdated)

    async def check(self) -> Comparison:
        """Compare engine and learner on the policy, once, and on what engines started since answered under synthetic
        adapters; Halted if any is not served faithfully. A caller that gives up waiting may ask again.
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
        """Cancel a probe that is under way."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})
