"""Plan a run, start or resume it, and watch it to its end.

    python launch/run.py conf=NAME [key=value …]
    python launch/run.py help [SECTION | KEY …]

Examples:

    python launch/run.py conf=quickstart
    python launch/run.py conf=r64_instruct plan=true device=A40
    python launch/run.py conf=mine data.source=file:problems.csv budget.minutes=30

The same command again resumes a run that was cut off. `plan=true` prints placement, memory and time, for this machine
or a card by name; `show=true` every setting and where it comes from; `dry_run=true` the first problems as the model
will see them. None of these starts anything.
"""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.coordinator.context import RunRequest
from actors.formats import duration
from actors.messages import ProblemSet
from actors.runtime.process import VLLM_BUILDS, after, exit_at_once, handle_signals, raise_exit, software_versions
from actors.runtime.ray_session import clear_session, ray_session, require_token
from actors.storage.checkpoints import version_of
from actors.storage.run_folder import RunFolder
from actors.storage.run_record import RunRecord
from actors.tracking.choice import check_installed
from conf.command import WORDS, PlainConsole, command, near
from conf.errors import BadInput
from conf.help import explain, show_settings
from conf.load import load
from conf.schema import Config, DashboardConfig
from launch.hardware.cards import choose, show_only
from launch.hardware.machine import Machine, check_build, cluster_note, detect
from launch.hardware.mps import PRICE, check_mps, mps_service
from launch.hardware.network import cluster_warning
from launch.plan.calibration import plan_measured
from launch.plan.forecast import Forecast, foresee, options, scale
from launch.plan.host_needs import check_host, needs_of_run
from launch.plan.plan import Plan
from launch.plan.refusal import check_budget, check_plan
from launch.plan.view import render, render_scaling
from launch.reporting import attempt, conclusion
from launch.result import describe
from launch.session.ending import OnEnd, next_steps, write_ending
from launch.session.remote_checkpoints import bring_back, check_remote, put_ending
from launch.session.resume import begin, find_folder, origin, resolve_dtype, take_over
from rewards.functions import check_functions

EXIT_CODES = {"completed": 0, "budget_exhausted": 0, "failed": 1, "halted": 3}

BAD_INPUT = 2
"""Exit code."""

LATE_S = 10.0
"""Seconds after the end of the budget at which a run that still goes on is taken to hang."""

GENERATED = "reasoning_gym:"

SHUTDOWN_S = 30.0
"""Seconds Ray gets to shut down after everything is saved."""


@command("run.py")
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 done, 1 failed, 2 bad input, 3 halted, 130 or 143 interrupted."""
    started_at = time.monotonic()
    handle_signals(exit_at_once)  # there is nothing to save yet
    console = PlainConsole()
    try:
        if not WORDS.isdisjoint(arguments):
            explain(arguments, __doc__)
            return 0
        config = load(arguments)
        if config.show:
            show_settings(config, arguments)
            return 0
        if config.plan:
            show_plan(config, console)
            return 0
        if config.dry_run:
            from launch.session.dry_run import show_dry_run

            resolve_dtype(config, detect(config.device))
            show_dry_run(config, console)
            return 0
        return start(config, console, started_at, arguments)
    except SystemExit as told:  # by SIGTERM while a cluster was joined: the handler then is Ray's
        return 128 + int(told.code or 0)


def show_plan(config: Config, console: Console) -> None:
    """Print what a run of this machine, or of the one it is to be planned for, would do."""
    machine = detect(config.device)
    plan, expected = foresee(plan_on(config, machine))
    if note := cluster_note():
        console.print(note, soft_wrap=True, highlight=False, markup=False)
    console.print(render(plan, expected, dict(options(plan)) if expected else None))
    if config.simulate:
        console.print(render_scaling(tuple(scale(plan, machine, config.simulate))))


def plan_on(config: Config, machine: Machine) -> Plan:
    """Return the plan of a run on a machine, after what earlier runs there have measured."""
    resolve_dtype(config, machine)
    check_functions(config.reward)
    if config.adapter:
        raise BadInput(f"adapter={config.adapter}: evaluate.py judges it; a run goes on from lora.start_from")
    return plan_measured(config, machine)


def start(config: Config, console: Console, started_at: float, arguments: Sequence[str] = ()) -> int:
    """Check that the run can be, take its folder and carry it out. Return the exit code.

    arguments: of the command line, to be kept.
    """
    require_token()
    check_installed(config.run.trackers)
    if config.run.restore:
        console.print(bring_back(config), soft_wrap=True)
    check_remote(config)
    cluster = os.environ.get("RAY_ADDRESS")
    if cluster:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as launch/node.sh; without it Ray waits for ever
        from launch.hardware.cluster import check_free, join, survey

        context = join(cluster, config)
        console.print(cluster_warning(), soft_wrap=True, highlight=False, markup=False)
        handle_signals(exit_at_once)
        plan = plan_on(config, survey(config))
        check_plan(plan)
        check_free(plan.placement)
    else:
        context = None
        plan = plan_on(config, detect(config.device))
        check_plan(plan)
        check_build(config, plan.machine, software_versions(VLLM_BUILDS))
    check_mps(config, plan.placement, joined=bool(cluster))
    check_budget(plan)
    folder = find_folder(config)
    counted, expected = foresee(plan)
    console.print(render(counted, expected))
    if os.path.exists(folder):
        take_over(folder, f"run {config.run.name!r}")  # what a killed process has left takes room
    check_host(needs_of_run(plan), folder, config.run.overwrite)
    there = plan.machine.cards if cluster else detect(config.device).cards  # with what is free by now
    cards = choose(there, plan.placement, plan.needed("learner GPU"))
    if not cluster:
        show_only(cards)
    with mps_service(config):
        return carry_out(prepare(plan, folder, started_at, arguments, expected), console, context)


def prepare(
    plan: Plan, folder: Path, started_at: float, arguments: Sequence[str] = (), expected: Forecast | None = None
) -> RunRequest:
    """Find model and data, check them, and only then touch the run folder. Return what the coordinator is given."""
    from actors.models.adapters import check_adapter
    from actors.models.files import load_tokenizer, locate
    from learner.model.architecture import check_architecture
    from rewards.pool import check_judges
    from rewards.problems.loading import load as load_problems
    from rewards.problems.loading import write_listing
    from rewards.reward import reward_function

    config = plan.config
    if not plan.machine.nodes:
        config.dashboard.port = free_port(config.dashboard)
    model_path = locate(config.model)
    check_architecture(config, model_path)
    check_adapter(config, model_path)
    problems = load_problems(config, load_tokenizer(model_path, config.model.path))
    print(f"Problems: {in_numbers(problems, config.data.source)}")
    absent_walls = check_judges(reward_function(config), problems.train[:1])
    begun = RunRecord(folder).exists and not config.run.overwrite
    changes = begin(config, folder, problems)
    run = RunFolder(folder.resolve())
    run.drop_half_event()
    for wall in absent_walls:
        print(f"Judges have no {wall}")
        run.append_event(0, "wall absent", wall)
    if config.run.mps:
        run.append_event(0, "mps", PRICE)
    write_listing(run.left_out_file, problems.left_out)
    if begun:
        latest = run.checkpoints.latest
        at = version_of(latest) if latest else 0
        print(f"Resuming at update {at}, {duration(run.spent)} of the budget spent")
    else:
        planned = {"planned": expected.kept} if expected else {}
        run.write_origin(origin(arguments, plan.machine.described) | planned)
    print("".join(f"Resumed with {change}\n" for change in changes), end="")
    if config.lora.start_from:  # the actors have working folders of their own
        config.lora.start_from = str(Path(config.lora.start_from).resolve())
    request = RunRequest(
        config=config,
        folder=run.path,
        model_path=model_path,
        placement=plan.placement,
        problems=problems,
        host_needs=needs_of_run(plan),
        hardware=plan.machine.described,
        started_at=started_at,
        spent_before=run.spent,
    )
    run.write_spent(request.spent)
    return request


def program(path: Path) -> str:
    """Return how a program is called from here: by its name alone in an active environment."""
    found = shutil.which(path.name)
    if found and Path(found) == path:
        return path.name
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def in_numbers(problems: ProblemSet, source: str) -> str:
    """Say how many problems there are, and what became of the other rows of a source. A generator draws the same
    problem many times, which is no loss.
    """
    from rewards.problems.rows import DUPLICATE, NO_MATCH, SHOWN

    said = f"{len(problems.train)} to train on, {len(problems.heldout)} held out"
    dropped = dict(problems.dropped)
    if source.startswith(GENERATED):
        repeated = sum(dropped.pop(reason, 0) for reason in (DUPLICATE, NO_MATCH, SHOWN))
        distinct = len(problems.train) + len(problems.heldout)
        said += f", all {distinct} distinct ones of {distinct + repeated:,} draws"
    return said + "".join(f"; {count} rows left out: {reason}" for reason, count in dropped.items())


def free_port(dashboard: DashboardConfig) -> int:
    """Return the dashboard's port, or any free one for 0. Raises BadInput if it is taken."""
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


def exit_code(summary: dict[str, Any]) -> int:
    """Return the exit code of a run that ended so; the reason of an interrupted one is the name of the signal."""
    status = summary["status"]
    return 128 + signal.Signals[summary["reason"]] if status == "interrupted" else EXIT_CODES[status]


def end_with_budget(request: RunRequest, on_end: OnEnd) -> threading.Timer:
    """Start a timer that ends this process, and all it started, if something hangs beyond the end of the budget."""

    def give_up() -> None:
        code = EXIT_CODES["failed"]
        try:
            reason = "the run still went on after the end of its budget: something hangs"
            summary = write_ending(request, "failed", reason)
            code = exit_code(summary)
            on_end(summary, code)
        finally:
            os._exit(code)

    return after(request.config.budget.seconds - request.spent + LATE_S, give_up)


def carry_out(request: RunRequest, console: Console, joined: Any = None) -> int:
    """Start Ray, unless a cluster was joined, and follow the run to its end. Return the exit code."""
    handle_signals(raise_exit)
    on_end = OnEnd(request.config, request.folder)
    timer = end_with_budget(request, on_end)
    try:
        with ray_session(request.config, request.placement, request.folder, dashboard=True, joined=joined) as (
            session,
            dashboard,
            metrics,
        ):
            from launch.session.watch import Watch

            show_places(console, request, dashboard, metrics)
            watch = Watch(request, console, session / "logs")
            summary = watch.follow()
            timer.cancel()
            handle_signals(lambda *_: leave(summary, on_end))  # all is saved
            watch.close(summary)
            timer = after(SHUTDOWN_S, lambda: leave(summary, on_end))
    except SystemExit as told:  # by a signal before there was a coordinator
        summary = write_ending(request, "interrupted", signal.Signals(int(told.code or 0)).name)
    except BadInput:
        if (written := RunRecord(request.folder).summary()) is not None:
            on_end(written, BAD_INPUT)
        raise
    finally:
        timer.cancel()

    console.print(describe(summary), soft_wrap=True, highlight=False)
    console.print(f"Report: {attempt(request.folder)}", soft_wrap=True, highlight=False, markup=False)
    if request.config.checkpoint.mirror:
        console.print(put_ending(request.config, request.folder), soft_wrap=True)
    if summary["status"] in ("failed", "halted"):
        logs = (RunRecord(request.folder).failure_log, session / "logs")
        places = [str(path) for path in logs if path.exists()]
        console.print(f"More is in {' and '.join(places)}", soft_wrap=True, highlight=False)
    else:
        clear_session(request.folder)
        RunFolder(request.folder).drop_adapters(keep=())  # checkpoints have what is needed of them
    for line in next_steps(summary, request.folder):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(conclusion(request.folder), soft_wrap=True, highlight=False, markup=False)
    on_end(summary, exit_code(summary))
    return exit_code(summary)


def leave(summary: dict[str, Any], on_end: OnEnd) -> None:
    """End this process at once, after what is to be done at a run's end."""
    try:
        on_end(summary, exit_code(summary))
    finally:
        os._exit(exit_code(summary))


def show_places(console: Console, request: RunRequest, dashboard: str, metrics: str) -> None:
    """Print where to look at the run while it goes on."""
    scripts = Path(sys.executable).parent
    places: dict[str, Any] = {
        "Ray dashboard": f"http://{dashboard}",
        "  its token": f"{program(scripts / 'ray')} get-auth-token",
        "  metrics": f"http://{metrics}/metrics",
        "TensorBoard": f"{program(scripts / 'tensorboard')} --logdir {near(request.folder.parent)}",
        "Run folder": near(request.folder),
    }
    if "tensorboard" not in request.config.run.trackers:
        del places["TensorBoard"]
    for name, place in places.items():
        console.print(f"{name:<14} {place}", soft_wrap=True, highlight=False)
    console.print()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
