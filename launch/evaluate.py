"""Measure how often a base model, without and with an adapter, solves the problems of benchmarks.

    python launch/evaluate.py [conf=NAME] [adapter=FOLDER] benchmarks=[…] n=16 [limit=…] [key=value …]

Examples:

    python launch/evaluate.py adapter=runs/quickstart 'benchmarks=[heldout]' n=8
    python launch/evaluate.py 'benchmarks=[aime24,amc23]' adapter=runs/r64_instruct
    python launch/evaluate.py conf=r64_instruct 'benchmarks=[file:my.jsonl]' n=4 limit=100

`base=FOLDER` reuses the base model's samples of another evaluation, such as runs/other/evaluation.

adapter=runs/NAME is the result of that run. An adapter in a run's folder is evaluated with its settings: leave out
conf=NAME. The results are in `evaluation/` in the run's folder. The same command continues an interrupted evaluation.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import asyncio
import contextlib
import signal
import sys
import time
from functools import partial

from rich.console import Console

from microbudget_rl.actors.adapter_check.at_work import check_before_evaluation
from microbudget_rl.actors.attempt import Attempts
from microbudget_rl.actors.clock import WallClock, cut_off
from microbudget_rl.actors.coordinator.stopping import StopController
from microbudget_rl.actors.errors import ActorDied, root_cause
from microbudget_rl.actors.evaluation.evaluator import complete_samples
from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.runtime.ray_session import BackgroundContext, clear_session, ray_session
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.command import PlainConsole, command, near, outliving_terminal
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.help import explain
from microbudget_rl.conf.installation import require
from microbudget_rl.conf.load import command_line
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.conf.signals import end_by_signal, handle_signals
from microbudget_rl.launch.evaluation import PreparedEvaluation, prepare, results_table, write_results
from microbudget_rl.launch.hardware.gpus import emptiest, show_only
from microbudget_rl.launch.hardware.machine import detect
from microbudget_rl.launch.plan.host_needs import check_host, needs_of_evaluation
from microbudget_rl.launch.reporting import attempt
from microbudget_rl.launch.reporting.tables import evaluation_notes
from microbudget_rl.launch.session.admission import resolve_model
from microbudget_rl.launch.session.ending import EXIT_CODES

CLOSE_S = 10.0
"""Seconds that actors have to end by themselves before Ray's shutdown kills them."""


@command("evaluate.py", partial(explain, usage=__doc__))
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 done or cut by the budget, 1 failed, 2 bad input, 130 or 143 interrupted."""
    started = time.monotonic()
    console = PlainConsole()
    asked = command_line(arguments, CommandLine)
    require("ray", "vllm")
    machine = detect(asked.device)
    if (evaluation := prepare(resolve_model(asked, machine), machine, console)) is None:
        return 0
    with outliving_terminal():
        deadline, done = started + evaluation.config.budget.seconds, evaluation.complete
        return conclude(evaluation, "completed" if done else carry_out(evaluation, console, deadline), console)


def carry_out(evaluation: PreparedEvaluation, console: Console, deadline: float) -> str:
    """Start Ray and the engines, and complete the samples by a time of time.monotonic. Return the status."""
    config, placement, folder = evaluation.config, evaluation.engines.placement, evaluation.folder.path
    check_host(needs_of_evaluation(evaluation.engines), folder)
    show_only(emptiest(detect(config.device).cards, placement.gpus))
    status = "failed"
    with BackgroundContext(ray_session(config, placement, folder, dashboard=False)) as (session, _):
        try:
            status = asyncio.run(complete(evaluation, deadline, console))
        except Exception as error:  # may be a task group's
            cause = root_cause(error)
            if isinstance(cause, BadInput):
                raise cause from None
            if not isinstance(cause, ActorDied):
                raise
            console.print(f"failed: {cause}; more is in {session / 'logs'}")
    if status != "failed":
        clear_session(folder)
    return status


async def complete(evaluation: PreparedEvaluation, deadline: float, console: Console) -> str:
    """Complete the samples after the adapter check. Return completed, budget_exhausted, or the name of a signal."""
    from microbudget_rl.launch.session.actors import start_engines, start_verifier
    from microbudget_rl.rewards.weighted_sum import reward_function

    config, placement, policies = evaluation.config, evaluation.engines.placement, evaluation.policies
    clock, loop = WallClock(), asyncio.get_running_loop()
    stopping, started = StopController(clock), clock.now()
    total = sum(each.n * len(each.problems) for each in policies)

    def on_signal(number: int, _: object) -> None:
        handle_signals(end_by_signal)
        loop.call_soon_threadsafe(stopping.stop, signal.Signals(number).name)

    def note(actor: str, kind: EventKind, text: str) -> None:
        console.print(f"{actor} {kind}: {text}")

    def show() -> None:
        sampled = sum(each.sampled for each in policies)
        if sampled % max(total // 20, 1) == 0:
            console.print(f"{sampled} of {total} samples after {duration(clock.now() - started)}")

    handle_signals(on_signal)
    engines = start_engines(config, evaluation.model_path, placement, clock, note)
    verifier = start_verifier(reward_function(config), placement, clock, note)

    async def work() -> str:
        await engines.ready()
        if adapter := next((each.adapter for each in policies if each.adapter), None):
            await engines.load(adapter)
            await check_before_evaluation(config, engines, adapter, policies[0].problems)
        write_results(evaluation, "running")
        at_once = config.rollout.concurrent_samples * len(placement.rollouts)
        attempts = Attempts(config, engines, verifier, clock)
        await complete_samples(attempts, *policies, at_once=at_once, on_sample=show)
        return "completed"

    try:
        async with cut_off(asyncio.timeout(deadline - clock.now())):
            return await stopping.unless_stopped(work()) or stopping.reason
        return "budget_exhausted"
    finally:
        handle_signals(end_by_signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(engines.close(), verifier.close(), return_exceptions=True)


def conclude(evaluation: PreparedEvaluation, status: str, console: Console) -> int:
    """Write and show the results. Return the exit code."""
    document = write_results(evaluation, status)
    if document.benchmarks:
        console.print(results_table(document))
    for line in evaluation_notes(document):
        console.print(line)
    if not evaluation.complete:
        anew = ", without run.overwrite=true," if evaluation.config.run.overwrite else ""
        console.print(f"{status.replace('_', ' ')}: the same command{anew} continues from here")
    folder = evaluation.folder.path
    console.print(f"{near(folder)}: evaluation.json, evaluation.md, samples/")
    if RunRecord(folder.parent).exists:
        console.print(f"Report: {attempt(folder.parent)}")
    return EXIT_CODES[status] if status in EXIT_CODES else 128 + signal.Signals[status]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
