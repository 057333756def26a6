"""The Ray side of an evaluation: engines and judges, and what they are asked."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from actors.adapter_check.effect import check_effect
from actors.coordinator.stopping import StopController
from actors.evaluation.benchmark import examine
from actors.rollout.actor import RemoteEngine, RolloutActor
from actors.rollout.pool import EnginePool
from actors.runtime.clock import WallClock
from actors.runtime.placement import Placement, Share
from actors.runtime.remote_actor import RemoteActor
from actors.runtime.worker_pool import Record
from actors.storage.transcript import Transcript
from conf.schema import Config
from rewards.actor import RemoteJudge, RemoteVerifier, RewardActor
from rewards.reward import recipe

CLOSE_S = 10.0
"""Seconds that actors have to end by themselves; Ray's shutdown kills who hangs."""


class Examiner:
    """record: takes an actor's name and why it had to be replaced."""

    def __init__(self, config: Config, model_path: str, placement: Placement, record: Record) -> None:
        self._config = config
        self._model_path = model_path
        self._placement = placement
        self._record = record

    async def run(
        self,
        transcripts: Sequence[Transcript],
        deadline: float,
        on_start: Callable[[], object],
        on_sample: Callable[[], None],
        on_signals: Callable[[Callable[[str], None]], None],
    ) -> str:
        """Draw what the transcripts miss, once the answers of every engine have differed with the adapter and without.

        How it ended: completed, budget_exhausted at the deadline (of time.monotonic), or the reason it was stopped for.
        on_start: called before the first sample. on_signals: is given what stops the drawing for a reason.
        """
        config, clock = self._config, WallClock()
        stopping = StopController(clock)
        on_signals(stopping.stop)
        concurrent, shares = config.rollout.max_concurrent_samples, self._placement.rollouts
        actors = [
            RemoteActor(RolloutActor, f"rollout-{number}", share, config, self._model_path, share)
            for number, share in enumerate(shares)
        ]
        fleet = EnginePool([RemoteEngine(actor, concurrent) for actor in actors], clock, self._record)
        workers = config.reward.workers or self._placement.reward_workers
        judge = RemoteActor(RewardActor, "reward-0", Share(), recipe(config), workers)
        verifier = RemoteVerifier([RemoteJudge(judge, config.reward.deadline_s)], clock, self._record)

        async def work() -> str:
            await fleet.ready()
            if adapter := next((each.adapter for each in transcripts if each.adapter), None):
                await fleet.load(adapter)
                await check_effect(config, fleet, adapter, transcripts[0].problems[: config.canary.problems])
            on_start()
            await examine(config, fleet, verifier, transcripts, clock, concurrent * len(shares), on_sample)
            return "completed"

        try:
            async with asyncio.timeout(deadline - clock.now()):
                return await stopping.unless_stopped(work()) or stopping.reason
        except TimeoutError:
            return "budget_exhausted"
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await asyncio.gather(fleet.close(), verifier.close(), return_exceptions=True)
