"""`python launch/run.py conf=NAME [key=value …]`: plan a run, start or resume it, watch it to its end."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from conf.errors import BadInput
from conf.load import load
from conf.schema import Config, DashboardConfig
from launch.plan.calibration import recall
from launch.plan.cards import choose, show_only
from launch.plan.forecast import forecast, options, scale
from launch.plan.host_needs import check_room, room_of
from launch.plan.machine import beside_cluster, check_build, detect
from launch.plan.plan import Plan, make_plan, refusal
from launch.plan.view import render, render_scaling
from launch.report import attempt
from launch.result import describe
from launch.session.failure import spent, write_ending, write_spent
from launch.session.ray_session import clear_session, joined_session, ray_session
from launch.session.resume import claim, hold, open_folder, settle
from launch.session.signals import handle, leave, unwind

if TYPE_CHECKING:
    from launch.session.coordinator_actor import RunRequest

EXIT_CODES = {"completed": 0, "budget_exhausted": 0, "failed": 1, "halted": 3}

LATE_S = 10.0
"""Seconds after the end of the budget at which a run that still goes on is taken to hang."""

SHUTDOWN_S = 30.0
"""That Ray is given to end once all is saved."""


def main(arguments: list[str]) -> int:
    """The exit code: 0 done, 1 failed, 2 bad input, 3 halted, 130 or 143 interrupted."""
    started_at = time.time()
    handle(leave)  # there is nothing to save yet
    console = Console()
    try:
        config = load(arguments)
        cluster = None if config.plan else os.environ.get("RAY_ADDRESS")
        if cluster:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # as launch/node.sh; without it Ray waits for ever
            from launch.plan.cluster import check_free, join, resources, survey

            context = join(cluster, config)
            handle(leave)
            machine = survey(config)
        else:
            machine, context = detect(config.device), None
        settle(config, machine)
        if config.adapter:
            raise BadInput(f"adapter={config.adapter}: evaluate.py judges it; a run goes on from lora.start_from")
        plan = make_plan(config, machine, recall(config, machine))
        expected = forecast(plan) if plan.estimate else None
        if config.plan:
            if note := beside_cluster():
                console.print(note, soft_wrap=True, highlight=False, markup=False)
            console.print(render(plan, expected, tuple(options(plan)) if expected else ()))
            if config.simulate:
                console.print(render_scaling(plan, tuple(scale(plan, machine, config.simulate, plan.calibration))))
            return 0
        refusal(plan)
        if cluster:
            check_free(plan.placement, *resources())
        else:
            check_build(config, machine, {package.name for package in distributions()})
        folder = open_folder(config)
        console.print(render(plan, expected))
        if folder.exists():
            hold(folder, f"run {config.run.name!r}")  # what a killed process has left takes room
        check_room(room_of(plan), folder, config.run.overwrite)
        there = machine.cards if cluster else detect(config.device).cards  # with what is free by now
        cards = choose(there, plan.placement, plan.needed("learner GPU"))
        if not cluster:
            show_only(cards)
        request = prepare(plan.config, plan, folder, started_at)
        return carry_out(request, console, context)
    except BadInput as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except SystemExit as told:  # by SIGTERM while a cluster was joined: the handler then is Ray's
        return 128 + int(told.code or 0)


def prepare(config: Config, plan: Plan, folder: Path, started_at: float) -> "RunRequest":
    """Find model and data, check them, and only then touch the run folder."""
    from transformers import AutoTokenizer

    from conf.adapters import check_adapter
    from conf.models import locate
    from launch.session.coordinator_actor import RunRequest
    from rewards.problems.loading import load as load_problems
    from rewards.problems.loading import write_listing

    if not plan.machine.nodes:
        config.dashboard.port = free_port(config.dashboard)
    model_path = locate(config.model)
    check_adapter(config, model_path)
    problems = load_problems(config, AutoTokenizer.from_pretrained(model_path))
    dropped = "".join(f"; {count} dropped: {reason}" for reason, count in problems.dropped.items())
    print(f"Problems: {len(problems.train)} to train on, {len(problems.heldout)} held out{dropped}")
    changes = claim(config, folder, problems)
    write_listing(folder / "problems-left-out.jsonl", problems.left_out)
    print("".join(f"Resumed with {change}\n" for change in changes), end="")
    before = spent(folder)
    request = RunRequest(
        config, str(folder.resolve()), model_path, plan.placement, problems, room_of(plan), started_at, before
    )
    write_spent(folder, request.spent)
    return request


def free_port(dashboard: DashboardConfig) -> int:
    """The dashboard's port, or any free one for 0; BadInput if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((dashboard.host, dashboard.port))
        except OSError as error:
            raise BadInput(
                f"dashboard.port={dashboard.port} on {dashboard.host} cannot be used ({error.strerror}): stop the "
                f"other run or Ray at work here, or give dashboard.port=0 for any free port"
            ) from error
        return int(probe.getsockname()[1])


def end_with_budget(request: "RunRequest") -> threading.Timer:
    """A timer that ends this process, and all it started, should it outlive the budget because something hangs."""

    def give_up() -> None:
        code = EXIT_CODES["failed"]
        try:
            reason = "the run still went on after the end of its budget: something hangs"
            code = exit_code(write_ending(request, "failed", reason))
        finally:
            os._exit(code)

    return after(request.config.budget.seconds - request.spent + LATE_S, give_up)


def exit_code(summary: dict[str, Any]) -> int:
    """Of a run that ended so; one that was interrupted has the name of the signal for its reason."""
    status = summary["status"]
    return 128 + signal.Signals[summary["reason"]] if status == "interrupted" else EXIT_CODES[status]


def after(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


def carry_out(request: "RunRequest", console: Console, joined: Any = None) -> int:
    """Start Ray, unless a cluster was joined, and the coordinator, show progress, pass signals on; the exit code."""
    handle(unwind)
    timer = end_with_budget(request)
    config, folder = request.config, Path(request.folder)
    try:
        own = None if joined else ray_session(config, request.placement, folder, dashboard=True)
        with own or joined_session(joined) as (session, dashboard, metrics):
            from launch.session.watch import Watch

            scripts = Path(sys.executable).parent
            hints = {
                "Ray dashboard": f"http://{dashboard}",
                "its metrics": f"http://{metrics}/metrics",
                "its token": f"{scripts}/ray get-auth-token",
                "TensorBoard": f"{scripts}/tensorboard --logdir {folder}/tensorboard",
                "Run folder": folder,
            }
            for name, hint in hints.items():
                console.print(f"{name:<14} {hint}", soft_wrap=True, highlight=False)
            console.print()
            watch = Watch(request, console, session / "logs")
            summary = watch.follow()
            timer.cancel()
            handle(lambda *_: os._exit(exit_code(summary)))  # all is saved
            watch.close()
            timer = after(SHUTDOWN_S, lambda: os._exit(exit_code(summary)))
    except SystemExit as told:  # by a signal before there was a coordinator
        summary = write_ending(request, "interrupted", signal.Signals(int(told.code or 0)).name)
    finally:
        timer.cancel()

    for line in describe(summary):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"Report: {attempt(folder)}", soft_wrap=True, highlight=False, markup=False)
    if summary["status"] in ("failed", "halted"):
        places = [path for path in (folder / "failure.log", session / "logs") if path.exists()]
        console.print(f"More is in {' and '.join(map(str, places))}", soft_wrap=True, highlight=False)
    else:
        clear_session(folder)
    return exit_code(summary)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
