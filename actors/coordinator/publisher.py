"""The version that new groups are sampled from, and whether the engines truly serve it."""

import asyncio
from collections.abc import Callable

from actors.adapter_check.canary import Answers, Canary, Judgement
from actors.adapter_check.probes import Probes
from actors.adapter_check.startup_check import StartupCheck
from actors.messages import AdapterRef
from actors.protocols import Engine, Learner


class PolicyPublisher:
    """Swaps adapters in the engines and has the canary vouch for each.

    policy: the version that new groups are sampled from; None before the first and after a history was abandoned.
    """

    def __init__(self, engine: Engine, learner: Learner, probes: Probes, canary: Canary, proof: StartupCheck) -> None:
        self.policy: AdapterRef | None = None
        self._engine = engine
        self._learner = learner
        self._probes = probes
        self._canary = canary
        self._proof = proof
        self._outdated: list[AdapterRef] = []
        self._probe: asyncio.Task[tuple[Answers, ...]] | None = None
        self._judgement: Judgement

    @property
    def noise(self) -> float | None:
        """What the canary measured between engine and learner."""
        return self._canary.noise

    @property
    def held(self) -> tuple[AdapterRef, ...]:
        """The adapters that engines have, or must be able to load again."""
        return (*self._proof.adapters, *self._versions)

    @property
    def _versions(self) -> tuple[AdapterRef, ...]:
        return (*self._outdated, *([self.policy] if self.policy else []))

    async def adopt(self, adapter: AdapterRef) -> None:
        """Make a version the one new groups are sampled from, the canary's probes first."""
        await self._engine.load(adapter)
        if self.policy is not None:
            self._outdated.append(self.policy)
        self.policy = adapter
        self._probe = asyncio.create_task(self._probes.ask(self._engine, adapter))

    async def ask_canary(self) -> Judgement:
        """Compare engine and learner on the policy's version, once, and on what engines that have started since
        answered under synthetic adapters; Halted if any is not served faithfully. Who gives up waiting may ask again.
        """
        await self._proof.judge()
        if self._probe is not None:
            self._judgement = await self._probes.judge(self._canary, self._learner, await asyncio.shield(self._probe))
            self._probe = None
        return self._judgement

    async def retire_idle(self, runs: Callable[[int], bool]) -> None:
        """Give up outdated versions that no group needs any more; not before, since calls of an actor may overtake."""
        idle = [adapter for adapter in self._outdated if not runs(adapter.version)]
        self._outdated = [adapter for adapter in self._outdated if adapter not in idle]
        for adapter in idle:
            await self._engine.retire(adapter)

    async def abandon(self) -> None:
        """Give up every version, once the groups on them are cancelled."""
        await self.close()
        versions, self._outdated, self.policy = self._versions, [], None
        for adapter in versions:
            await self._engine.retire(adapter)

    async def close(self) -> None:
        """End a probe that is under way."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})
