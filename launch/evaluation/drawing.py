"""Drawing the samples of an evaluation: starts engines and verifier, asks them, ends them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from actors.adapter_check.effect_check import check_effect
from actors.coordinator.stopping import StopController
from actors.evaluation.evaluator import Evaluator
from actors.runtime.clock import WallClock
from actors.runtime.placement import Placement
from actors.runtime.supervision import Record
from actors.storage.evaluation_folder import SampleFile
from conf.schema import Config
from launch.session.actors import start_engines, start_verifier

CLOSE_S = 10.0
"""Seconds that actors have to end by themselves; Ray's shutdown kills who hangs."""


async def draw_samples(
    config: Config,
    model_path: str,
    placement: Placement,
    sample_files: Sequence[SampleFile],
    *,
    deadline: float,
    record: Record,
    on_start: Callable[[], object],
    on_sample: Callable[[], None],
) -> str:
    """Draw what the sample files miss, once the answers of every engine have differed with the adapter and without.

    Return how it ended: completed, budget_exhausted, or the name of a signal.
    deadline: of time.monotonic.
    record: takes an actor's name and why it had to be replaced.
    on_start: called before the first sample.
    The first SIGINT or SIGTERM stops the drawing, the second ends this process.
    """
    clock = WallClock()
    stopping = StopController(clock)

    def on_signal(number: signal.Signals) -> None:
        if stopping.stopped:
            os._exit(128 + signal.Signals[stopping.reason])
        stopping.stop(number.name)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    engines = start_engines(config, model_path, placement, clock=clock, record=record)
    verifier = start_verifier(config, placement, clock=clock, record=record)

    async def work() -> str:
        await engines.ready()
        if adapter := next((each.adapter for each in sample_files if each.adapter), None):
            await engines.load(adapter)
            await check_effect(config, engines, adapter, sample_files[0].problems[: config.canary.problems])
        on_start()
        at_once = config.rollout.max_concurrent_samples * len(placement.rollouts)
        await Evaluator(config, engines, verifier, clock).complete(sample_files, at_once, on_sample)
        return "completed"

    try:
        async with asyncio.timeout(deadline - clock.now()):
            return await stopping.unless_stopped(work()) or stopping.reason
    except TimeoutError:
        return "budget_exhausted"
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(engines.close(), verifier.close(), return_exceptions=True)
