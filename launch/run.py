"""Plan a run, start or resume it, and watch it to its end.

    python launch/run.py conf=NAME [key=value …]
    python launch/run.py help [SECTION | KEY …]

Examples:

    python launch/run.py conf=quickstart
    python launch/run.py conf=r64_instruct plan=true device=A40
    python launch/run.py conf=gsm8k plan=true 'device=[3060,4090,A40]' 'budget.price_per_hour=[0.08,0.40,0.30]'
    python launch/run.py conf=mine data.source=file:problems.csv budget.minutes=30

The same command resumes an interrupted run. `plan=true` prints placement, memory and time, for this machine
or a GPU by name; `show=true` prints every setting and its source. Neither starts anything.
"""

if __name__ == "__main__":
    import microbudget_rl.conf.first  # noqa: F401

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from microbudget_rl.actors.clock import in_thread
from microbudget_rl.actors.coordinator.context import RunRequest
from microbudget_rl.actors.models.adapters import check_adapter
from microbudget_rl.actors.runtime.process import after
from microbudget_rl.actors.runtime.ray_session import BackgroundContext, clear_session, ray_session, require_token
from microbudget_rl.actors.storage.copies import check_copies, copy_ending
from microbudget_rl.actors.storage.documents import RunSummary
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.actors.tracking import check_installed
from microbudget_rl.conf import signals
from microbudget_rl.conf.command import BAD_INPUT, PlainConsole, command, outliving_terminal, refused, unforeseen
from microbudget_rl.conf.errors import BadInput, TryLater, in_brief
from microbudget_rl.conf.help import explain, show_settings
from microbudget_rl.conf.installation import require
from microbudget_rl.conf.load import check_one_run, command_line
from microbudget_rl.conf.schema import CommandLine, Config
from microbudget_rl.conf.settings import changed, settings
from microbudget_rl.launch.hardware.machine import Machine, check_build, detect, free_port
from microbudget_rl.launch.plan.choice import for_each_gpu, render_choice
from microbudget_rl.launch.plan.host_needs import check_host, needs_of_run
from microbudget_rl.launch.plan.measurements import plan_measured
from microbudget_rl.launch.plan.plan import Plan, count_problems
from microbudget_rl.launch.plan.refusal import check_budget
from microbudget_rl.launch.plan.view import render_plan, render_scaling, scale
from microbudget_rl.launch.reporting import attempt, conclusion
from microbudget_rl.launch.session.admission import admit, resolve_model, take_run
from microbudget_rl.launch.session.console import show_places
from microbudget_rl.launch.session.ending import (
    OnEnd,
    describe,
    end_run,
    end_with_budget,
    exit_code,
    next_steps,
    write_ending,
)
from microbudget_rl.launch.session.preparation import planned, prepare
from microbudget_rl.rewards.killable_worker import start_server
from microbudget_rl.rewards.pool import check_functions

REMEDIES = {item.path: item.not_for_runs for item in settings(CommandLine) if item.not_for_runs}
"""What to do instead of giving a run a setting that it has no use for, by setting."""

SHUTDOWN_S = 30.0
"""Seconds Ray gets to shut down after everything is saved."""


@command("run.py", partial(explain, usage=__doc__), bare=True)
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 done, 1 failed, 2 bad input, 3 halted, 130 or 143 interrupted."""
    started_at = time.monotonic()
    console = PlainConsole()
    check_one_run(arguments)
    if gpus := for_each_gpu(arguments):
        console.print(render_choice([plan_here(command_line(one, CommandLine).config) for one in gpus]))
        return 0
    asked = command_line(arguments, CommandLine)
    if asked.show:
        show_settings(asked, arguments)
        return 0
    for argument in arguments:
        if remedy := REMEDIES.get(argument.partition("=")[0]):
            raise BadInput(f"{argument}: it is for evaluate.py; {remedy}")
    check_functions(asked.reward)
    if asked.plan:
        plan = plan_here(asked.config)
        if address := os.environ.get("RAY_ADDRESS"):
            console.print(f"Plan for this machine alone; a run would join the Ray cluster at {address}")
        console.print(render_plan(plan))
        if asked.simulate:
            console.print(render_scaling(scale(plan, asked.simulate)))
        return 0
    with outliving_terminal():
        return start(asked.config, console, started_at, arguments)


def plan_here(config: Config) -> Plan:
    """Return the plan of a run on this machine, or on the one that `device` names."""
    machine = detect(config.device)
    plan = plan_measured(resolve_model(config, machine), machine)
    check_adapter(plan.config)
    return replace(plan, problems=count_problems(plan.config))


def start(config: Config, console: Console, started_at: float, arguments: Sequence[str] = ()) -> int:
    """Check all needs of a run, take its folder and carry it out. Return the exit code. arguments: the command line."""
    require("ray", "vllm")
    require_token()
    check_installed(config.run.report_to)
    check_copies(config)
    cluster = os.environ.get("RAY_ADDRESS")
    joined, machine = join_cluster(cluster, config) if cluster else (None, detect(config.device))
    config = resolve_model(config, machine)
    if machine.present and not cluster:
        check_build(config, machine)
    folder = admit(config)  # before room is measured, on the GPU too: a killed process may have left something
    problems = count_problems(config)  # refuses bad data
    with planned(config, machine if cluster else detect(config.device), problems) as (plan, missing):
        check_budget(plan)
        console.print(render_plan(plan))
        if cluster:
            from microbudget_rl.launch.hardware.cluster import check_free

            check_free(plan.placement)
        elif (port := config.dashboard.port) is not None:
            remedy = "stop the other run or Ray on this machine, or leave it out for the next free port"
            port = free_port("127.0.0.1", port, "dashboard.port", remedy)
            plan = replace(plan, config=changed(plan.config, {"dashboard.port": port}))
        check_host(needs_of_run(plan), folder, config.run.overwrite)
        take_run(config, folder)
        start_server()  # it hides the environment, which Ray's processes need, while it starts
        session = BackgroundContext(ray_session(plan.config, plan.placement, folder, dashboard=True, joined=joined))
        try:
            request = prepare(plan, folder, started_at=started_at, arguments=arguments, missing=missing)
        except Exception as error:  # nothing can stop Ray while it is starting
            signals.leave(refused("run.py", error))
        return carry_out(request, console, session)


def join_cluster(address: str, config: Config) -> tuple[Any, Machine]:
    """Join a Ray cluster. Return Ray's context, and the cluster as one machine."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # as launch/node.sh does; without it Ray waits for ever
    from microbudget_rl.launch.hardware.cluster import join, survey

    context = in_thread(None, lambda: join(address, config))  # the main thread's SIGTERM stays ours
    return context, survey(config)


def carry_out(request: RunRequest, console: Console, started: AbstractContextManager[tuple[Path, str]]) -> int:
    """Follow a run to its end, in a Ray session that is being started. Return the exit code."""
    on_end = OnEnd(request.config, request.folder)

    def interrupt(number: int, _: object) -> None:
        end_run(write_ending(request, "interrupted", signal.Signals(number).name), on_end)

    signals.handle_signals(interrupt)  # until there is a coordinator
    timer = end_with_budget(request, on_end)

    def answered() -> None:
        nonlocal timer
        timer.cancel()
        timer = end_with_budget(request, on_end, answered=True)

    logs = [RunRecord(request.folder).failure_log]
    try:
        with started as (session, dashboard):
            from microbudget_rl.launch.session.watch import Watch

            show_places(console, request, dashboard)
            logs.append(session / "logs")
            watch = Watch(request, console, session / "logs")
            summary = watch.follow(answered)
            timer.cancel()
            signals.handle_signals(lambda *_: end_run(summary, on_end))  # all is saved
            watch.close(summary)
            timer = after(SHUTDOWN_S, lambda: end_run(summary, on_end))
    except BadInput:
        if (written := RunRecord(request.folder).summary()) is not None:
            on_end(written, BAD_INPUT)
        raise
    except Exception as error:  # the run has begun, so that it has an ending and its command is run
        reason = str(error) if isinstance(error, TryLater) else in_brief(error)
        summary = write_ending(request, "failed", reason, traceback.format_exc())
        if summary.reason != reason:  # it had ended before
            console.print(unforeseen(error))
    finally:
        timer.cancel()
    try:
        show_ending(summary, request, console, logs)
    finally:
        on_end(summary, exit_code(summary))
    return exit_code(summary)


def show_ending(summary: RunSummary, request: RunRequest, console: Console, logs: list[Path]) -> None:
    """Show how a run ended, write its report and copy its last files. Delete what only a failed run needs."""
    console.print(describe(summary))
    console.print(f"Report: {attempt(request.folder)}")
    if request.config.checkpoint.copy:
        console.print(copy_ending(request.config, request.folder))
    if summary.status in ("failed", "halted"):
        places = [str(path) for path in logs if path.exists()]
        console.print(f"More is in {' and '.join(places)}")
    else:
        clear_session(request.folder)
        RunFolder(request.folder).drop_adapters(keep=())  # checkpoints have the needed ones
    for line in next_steps(summary, request.config, request.folder):
        console.print(line)
    console.print(conclusion(request.folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
