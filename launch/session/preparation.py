"""Prepares a run from its plan: checks model and data before it touches the run folder."""

import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path

from microbudget_rl.actors.coordinator.context import RunRequest
from microbudget_rl.actors.formats import counted, duration
from microbudget_rl.actors.messages import ProblemSet
from microbudget_rl.actors.storage.checkpoints import read_state, version_of
from microbudget_rl.actors.storage.documents import EventKind, Origin, Planned
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.conf.command import as_typed
from microbudget_rl.conf.installation import ROOT
from microbudget_rl.conf.schema import Config, among, marked
from microbudget_rl.launch.hardware.gpus import emptiest, show_only
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.plan.host_needs import needs_of_run
from microbudget_rl.launch.plan.measurements import plan_measured
from microbudget_rl.launch.plan.plan import Plan, Problems, numbers
from microbudget_rl.launch.plan.refusal import check_plan
from microbudget_rl.launch.plan.view import purposes
from microbudget_rl.launch.session.admission import begin
from microbudget_rl.launch.sharing import tried
from microbudget_rl.rewards.problems.loading import OVERLAP_KEPT, write_listing
from microbudget_rl.rewards.problems.rows import DUPLICATE, NO_MATCH, SHOWN
from microbudget_rl.rewards.problems.sources import GENERATED


@contextmanager
def planned(
    config: Config, machine: Machine, problems: Problems | None = None
) -> Iterator[tuple[Plan, dict[str, str]]]:
    """Yield the plan of a run on what works on this machine, and why what would be better does not, by its name. Child
    processes see the plan's GPUs only, and use MPS there if it is planned. machine: with the free memory of its GPUs by
    now. Raises BadInput if the run cannot start.
    """
    with tried(config, machine) as trial:
        plan = replace(plan_measured(config, trial.machine), problems=problems)
        check_plan(plan)
        gpus = emptiest(machine.cards, plan.placement.gpus)
        if not machine.nodes:
            show_only(gpus)
        trial.check(config, plan.placement, gpus, plan.config.run.mps)
        if not plan.config.run.mps:
            trial.end_mps()
        yield plan, trial.missing(plan.placement)


def prepare(
    plan: Plan, folder: Path, *, started_at: float, arguments: Sequence[str] = (), missing: Mapping[str, str]
) -> RunRequest:
    """Find and check model and data, then write the run folder's first files. missing: see `planned`."""
    run = RunFolder(folder.resolve())
    begun, latest = run.exists, run.checkpoints.latest
    warmed = begun and latest is not None and read_state(latest).warm_start_over
    config, model_path, problems, absent_walls = find_and_check(plan.config, warmed)
    say_purposes(plan, problems)
    changes = begin(config, folder, problems)
    run.drop_half_event()
    for wall in absent_walls:
        print(f"Warning: this kernel has no {wall}")
        run.append_event(0, EventKind.WALL_ABSENT, wall)
    for name, fault in missing.items():
        print(f"Without {name}: {fault}")
        run.append_event(0, EventKind.FALLBACK, fault, name)
    write_listing(run.filtered_file, problems.filtered)
    made = version_of(latest) if latest else 0
    if begun:
        print(f"Resuming at update {made}, {duration(run.spent)} of the budget spent")
    began, expected = run.origin() if run.origin().command else origin(arguments, plan.machine.described), None
    if mean := plan.estimate:
        updates = mean.updates_in_all(made, run.spent)
        expected = Planned(updates=updates, update_s=mean.update_s, start_s=mean.start_s)
    run.write_origin(began.model_copy(update={"planned": expected}))
    print("".join(f"Resumed with {change}\n" for change in changes), end="")
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


def find_and_check(config: Config, warmed: bool = False) -> tuple[Config, str, ProblemSet, Sequence[str]]:
    """Find and check a run's model, data and reward. Return the settings with the model pinned, the model's folder, the
    problems, and the walls around reward functions that this kernel lacks. warmed: whether its warm start is over.
    """
    from microbudget_rl.actors.models.adapters import check_adapter, pinned
    from microbudget_rl.actors.models.files import load_tokenizer, locate
    from microbudget_rl.learner.model.architecture import check_architecture
    from microbudget_rl.rewards.pool import check_reward_functions
    from microbudget_rl.rewards.problems.candidates import load_with_candidates
    from microbudget_rl.rewards.problems.loading import load_problems
    from microbudget_rl.rewards.weighted_sum import reward_function

    config = pinned(config)
    model_path = locate(config.model)
    check_architecture(config, model_path)
    check_adapter(config, model_path)
    load = load_problems if warmed else load_with_candidates
    problems = load(config, load_tokenizer(model_path, config.model.path))
    print(f"Problems: {problem_counts(problems, config)}")
    every = [*problems.all, *chain(*(each.problems for each in problems.benchmarks))]
    return config, model_path, problems, check_reward_functions(reward_function(config), every)


def say_purposes(plan: Plan, problems: ProblemSet) -> None:
    """Print what the problems of a run are for, unless its plan, which counts without a tokenizer, has said so."""
    if (usable := numbers(problems, plan.config.data)) != plan.problems:
        print(purposes(replace(plan, problems=usable)))


def problem_counts(problems: ProblemSet, config: Config) -> str:
    """Return a text on the number of problems and of filtered rows by reason, without a generator's repetitions."""
    many, few = (
        Counter(problem.source for problem in problems.train),
        len(problems.selection) < config.validation_problems,
    )
    each = f" ({', '.join(f'{many[name]} {name}' for name in config.data.weights)})" if config.data.mixture else ""
    said = f"{len(problems.train)} to train on{each}, {len(problems.heldout)} held out"
    sets = {f"for validation{f', not {config.validation_problems}' if few else ''}": problems.selection}
    sets |= {
        "for the warm start": problems.candidates,
        **{f"of {each.name}": each.problems for each in problems.benchmarks},
    }
    said += "".join(f", {len(one)} {what}" for what, one in sets.items() if one)
    numbers = dict(problems.filtered_counts)
    if any(each.source.startswith(GENERATED) for each in config.data.by_source.values()):
        repeated = sum(numbers.pop(reason, 0) for reason in (DUPLICATE, NO_MATCH, SHOWN))
        distinct = len(problems.all)
        said += f", all {distinct} distinct ones of {distinct + repeated:,} generated"
    fate = {reason: "used" if reason == OVERLAP_KEPT else "filtered" for reason in numbers}
    return said + "".join(f"; {counted(count, 'row')} {fate[why]}: {why}" for why, count in numbers.items())


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
    shown = [argument for argument, key in keys.items() if not any(among(name, (key,)) for name in marked("private"))]
    return as_typed(shlex.join(["python", f"launch/{program}", *shown]))


def commit() -> str:
    """Return the project's commit, with a plus if files differ from it; empty without git, or in another's checkout."""
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, timeout=10.0, check=True)
    try:
        git(["git", "ls-files", "--error-unmatch", "launch"])  # an installed copy may lie in somebody's checkout
        return str(git(["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+"]).stdout).strip()
    except (OSError, subprocess.SubprocessError):
        return ""
