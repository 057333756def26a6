"""Prepares a run from its plan: checks model and data before it touches the run folder."""

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from actors.coordinator.context import RunRequest
from actors.formats import counted, duration
from actors.messages import ProblemSet
from actors.storage.checkpoints import version_of
from actors.storage.documents import EventKind, Origin, Planned
from actors.storage.run_folder import RunFolder
from actors.storage.run_record import RunRecord
from conf.command import as_typed
from conf.schema import among, marked
from conf.settings import changed
from launch.hardware.gpus import Gpu, check_mode, choose, show_only
from launch.hardware.ipc import not_shared
from launch.hardware.machine import detect
from launch.hardware.mps import mps_service
from launch.plan.calibration import plan_measured
from launch.plan.estimate import Estimate
from launch.plan.host_needs import needs_of_run
from launch.plan.plan import Change, Plan
from launch.plan.refusal import check_plan
from launch.session.resume import begin

GENERATED = "reasoning_gym:"

PROJECT = Path(__file__).parents[2]

GIT_S = 10.0


@contextmanager
def tried(plan: Plan) -> Iterator[tuple[Plan, str, str]]:
    """Let child processes see the plan's GPUs only, and use MPS there if planned. Yield the plan by what works there,
    the text of an event about MPS (see `mps_service`), and why engine and learner share no weights although planned.
    """
    cluster = bool(plan.machine.nodes)
    available = plan.machine.cards if cluster else detect(plan.config.device).cards  # with their free memory by now

    def placed(plan: Plan, change: Change) -> tuple[Plan, list[Gpu]]:
        made = plan_measured(changed(plan.asked, change), plan.machine) if change else plan
        check_plan(made)
        made = made.divided(available)
        gpus = choose(available, made.placement, made.needed("learner GPU"))
        if not cluster:
            show_only(gpus)
        return made, gpus

    plan, gpus = placed(plan, {})
    with mps_service(plan.config, plan.asked.run.nvidia_mps) as (config, mps):
        check_mode(gpus, plan.placement, config.run.mps)
        mps_now: Change = {"run.nvidia_mps": config.run.nvidia_mps}
        if config.run.mps != plan.config.run.mps:
            plan, _ = placed(plan, mps_now)
        if own_copies := not_shared(plan.asked, plan.placement):
            plan, _ = placed(plan, {"model.shared_weights": "off"})
        yield replace(plan, asked=changed(plan.asked, mps_now)), mps, own_copies


def prepare(
    plan: Plan,
    folder: Path,
    started_at: float,
    arguments: Sequence[str] = (),
    expected: Estimate | None = None,
    mps: str = "",
    own_copies: str = "",
) -> RunRequest:
    """Find and check model and data, then write the run folder's first files. Return the coordinator's request.

    mps: the text of an event, see `mps_service`.
    own_copies: why engine and learner do not share the base model's weights, although that is planned.
    """
    from actors.models.adapters import check_adapter, pinned
    from actors.models.files import load_tokenizer, locate
    from learner.model.architecture import check_architecture
    from rewards.pool import check_reward_functions
    from rewards.problems.loading import load as load_problems
    from rewards.problems.loading import write_listing
    from rewards.reward import reward_function

    config = pinned(plan.config)
    model_path = locate(config.model)
    check_architecture(config, model_path)
    check_adapter(config, model_path)
    problems = load_problems(config, load_tokenizer(model_path, config.model.path))
    print(f"Problems: {problem_counts(problems, config.data.source)}")
    absent_walls = check_reward_functions(reward_function(config), (*problems.train, *problems.heldout))
    begun = RunRecord(folder).exists and not config.run.overwrite
    changes = begin(config, folder, problems)
    run = RunFolder(folder.resolve())
    run.drop_half_event()
    for wall in absent_walls:
        print(f"Warning: this kernel has no {wall}")
        run.append_event(0, EventKind.WALL_ABSENT, wall)
    if mps and config.run.mps:
        run.append_event(0, EventKind.MPS, mps)
    elif mps:
        run.append_event(0, EventKind.FALLBACK, mps, "NVIDIA's MPS")
    if own_copies:
        run.append_event(0, EventKind.FALLBACK, own_copies, "weights")
    write_listing(run.left_out_file, problems.left_out)
    latest = run.checkpoints.latest
    made = version_of(latest) if latest else 0
    if begun:
        print(f"Resuming at update {made}, {duration(run.spent)} of the budget spent")
    planned = expected and Planned(
        updates=expected.updates_in_all(made, run.spent), update_s=expected.update_s, start_s=expected.start_s
    )
    began = run.origin() if begun else origin(arguments, plan.machine.described)
    run.write_origin(began.model_copy(update={"planned": planned}))
    print("".join(f"Resumed with {change}\n" for change in changes), end="")
    if config.lora.start_from:  # the actors have working folders of their own
        config = changed(config, {"lora.start_from": str(Path(config.lora.start_from).resolve())})
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


def problem_counts(problems: ProblemSet, source: str) -> str:
    """Return a text on the number of problems and of filtered rows by reason, without a generator's repetitions."""
    from rewards.problems.loading import USED
    from rewards.problems.rows import DUPLICATE, NO_MATCH, SHOWN

    said = f"{len(problems.train)} to train on, {len(problems.heldout)} held out"
    dropped = dict(problems.dropped)
    if source.startswith(GENERATED):
        repeated = sum(dropped.pop(reason, 0) for reason in (DUPLICATE, NO_MATCH, SHOWN))
        distinct = len(problems.train) + len(problems.heldout)
        said += f", all {distinct} distinct ones of {distinct + repeated:,} generated"
    fate = {reason: "used" if reason in USED else "filtered" for reason in dropped}
    return said + "".join(f"; {counted(count, 'row')} {fate[why]}: {why}" for why, count in dropped.items())


def origin(arguments: Sequence[str], machine: str) -> Origin:
    return Origin(
        command=command_line("run.py", arguments),
        commit=commit(),
        started=datetime.now().astimezone().isoformat(timespec="minutes"),
        machine=machine,
    )


def command_line(program: str, arguments: Sequence[str]) -> str:
    """Return the command that runs a program of launch/ again, without private settings."""
    keys = {argument: argument.partition("=")[0] for argument in arguments}
    kept = [argument for argument, key in keys.items() if not any(among(name, (key,)) for name in marked("private"))]
    return as_typed(shlex.join(["python", f"launch/{program}", *kept]))


def commit() -> str:
    """Return the project's commit, with a plus if files differ from it; empty without git, or in another's checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, timeout=GIT_S, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "launch")  # an installed copy may lie in somebody's checkout
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))
    except (OSError, subprocess.SubprocessError):
        return ""
