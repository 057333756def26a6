"""Checks whether a run may start or continue in a folder, and takes that folder over."""

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from microbudget_rl.actors.coordinator.budget import FINISH_MARGIN_S, SAFETY, enough_s
from microbudget_rl.actors.coordinator.rules.selection import Selection
from microbudget_rl.actors.formats import duration
from microbudget_rl.actors.messages import HELD_OUT_SETS, ProblemSet
from microbudget_rl.actors.models.families import read_config, text_config
from microbudget_rl.actors.models.files import config_folder, linear_modules
from microbudget_rl.actors.runtime.ray_session import NOTE, clear_session
from microbudget_rl.actors.storage.documents import RunSummary
from microbudget_rl.actors.storage.files import lock
from microbudget_rl.actors.storage.folders import Kind, check_free, claim, entries, give_back, set_aside
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf import signals
from microbudget_rl.conf.command import near
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import dump, flatten, recorded, unmoved
from microbudget_rl.conf.schema import AnyConfig, Config, among, marked
from microbudget_rl.conf.schema.model import ALL_LINEAR
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import Machine
from microbudget_rl.launch.plan.refusal import LEAST_START
from microbudget_rl.launch.plan.time import START_S

held = set[Path]()
"""Folders that this process keeps locked until its end."""


def admit(config: Config) -> Path:
    """Return the folder of a run that may start or continue, without what a killed process has left there, and locked
    if there is one. Raises BadInput if the run is finished and gets no more, has too little left of its budget or was
    begun with other settings, if the folder is not a run's, and if another process has it.
    """
    run = RunRecord(config.run.path)
    check_free(run.path, "run")
    if run.exists and not config.run.overwrite:
        run.check()
        if (summary := run.finished()) is not None:
            check_continuation(config, run, summary)
        if said := budget_shortage(config, run):
            raise BadInput(f"run {config.run.name!r}: {said}, or start it again by run.overwrite=true")
        check_settings(config, run)
    if run.path.exists():
        hold(run.path, f"run {config.run.name!r}")
    return run.path


def budget_shortage(config: Config, run: RunRecord) -> str:
    """Say what is enough if the rest of a run's budget is too short for its start, final evaluation and end."""
    if config.budget.seconds > (least_s := least_budget_s(config, run)):
        return ""
    return (
        f"{duration(run.spent)} of its {duration(config.budget.seconds)} are spent, and start, final evaluation and end"
        f" may take {duration(least_s - run.spent)}: give at least {enough_budget(config, run)}"
    )


def least_budget_s(config: Config, run: RunRecord) -> float:
    """Return the seconds of a budget beyond which a run may start again, by its last start and its first evaluation."""
    ledger, base = run.ledger(), run.scores("base")
    start_s = (ledger and ledger.start_s) or LEAST_START * START_S["cpu"]
    rounds = {"": config.eval.n, **{each.name: each.n for each in config.eval.resolved_benchmarks}}
    evaluate_s, *benchmarks = (base[name].round_seconds * n if name in base else 0.0 for name, n in rounds.items())
    return enough_s(run.spent + SAFETY * start_s + FINISH_MARGIN_S, config.final_policies, evaluate_s, sum(benchmarks))


def enough_budget(config: Config, run: RunRecord, twice: bool = False) -> str:
    """Return the setting of the smallest budget, from this or `twice` this one on, that allows a run another start."""
    least = math.floor(least_budget_s(config, run) / 60) + 1
    return f"budget.minutes={max(math.ceil((1 + twice) * config.budget.seconds / 60), least)}"


def check_continuation(config: Config, run: RunRecord, summary: RunSummary) -> None:
    """Raise BadInput unless a finished run gets more of what ended it, and can use it."""
    name, before, exhausted = config.run.name, run.config(), summary.status == "budget_exhausted"
    asked, had, unrisen = config.budget.updates, before.budget.updates, Selection(run.scored()).unrisen
    ended, hint, more = "completed", "", False
    if exhausted:
        ended, hint = "completed within its time budget", enough_budget(config, run, twice=True)
        more = summary.budget_s is not None and config.budget.seconds > summary.budget_s
    elif had is not None and had <= summary.updates:
        hint, more = f"budget.updates={2 * had}", asked is None or asked > had
    elif 0 < before.validation.patience <= unrisen:
        hint, more = f"validation.patience={2 * unrisen}", not 0 < config.validation.patience <= unrisen
    if not more:
        raise BadInput(
            f"run {name!r} in {run.path} is finished ({ended}): give run.overwrite=true to start it again, "
            f"{f'{hint} to continue it, ' if hint else ''}or run.name=OTHER to keep it"
        )
    result = "best" if run.checkpoints.best else "latest"
    if exhausted and summary.updates and ends_at_zero(config):
        raise BadInput(
            f"run {name!r} in {run.path} is finished, at a learning rate of 0 by learner.schedule="
            f"{config.learner.schedule}, which a larger budget would raise again: continue from its adapter by"
            f" run.name=OTHER lora.start_from={run.checkpoints.folder / result / 'adapter'}"
        )


def ends_at_zero(config: Config) -> bool:
    """Whether the learning rate has fallen to zero at the end of the budget."""
    return config.learner.schedule != "constant" and config.learner.final_rate == 0


def check_settings(config: Config, run: RunRecord) -> None:
    """Raise BadInput if a run was begun with other values of settings that may not change."""
    free, new = marked("resumable"), changes(config, run)
    refused = {key: new[key] for key in new if not among(key, free) or (key == "validation.every" and 0 in new[key])}
    if refused:
        (key, (before, now)), *others = refused.items()
        raise BadInput(
            f"run {config.run.name!r} was begun with {key}={before}, not {now}: give the same settings, run.name=OTHER "
            "or run.overwrite=true" + (f" (also changed: {', '.join(key for key, _ in others)})" if others else "")
        )


def resolve_model(config: AnyConfig, machine: Machine) -> AnyConfig:
    """Return the settings with the model's pin and dtype that a run began with; for model.dtype=auto, else with the
    machine's faster dtype. A run or a checkpoint in lora.start_from stands for its adapter, which a resumed run keeps.

    `lora.target_modules` then names the modules that all-linear stands for. A machine that is not this one has no run
    to resume here.
    """
    run = RunRecord(config.run.path)
    resumes = machine.present and run.exists and not config.run.overwrite
    begun = run.config() if resumes else None
    if config.model.dtype == "auto":
        config = changed(config, {"model.dtype": begun.model.dtype if begun else machine.dtype})
    if named := config.lora.start_from:
        start = begun.lora.start_from if begun else ""
        if not start or not Path(start).resolve().is_relative_to(Path(named).resolve()):
            previous = result_of(Path(named).absolute(), f"lora.start_from={named}")
            start = str(previous / "adapter" if (previous / "adapter").is_dir() else previous)
        config = changed(config, {"lora.start_from": start})
    pin = begun.model.pin if begun and begun.model.path == config.model.path else ""
    config = changed(config, {"model.pin": config.model.pin or pin})
    if config.lora.target_modules == [ALL_LINEAR]:
        modules = linear_modules(text_config(read_config(config_folder(config.model))))
        config = changed(config, {"lora.target_modules": modules})
    return config


def result_of(folder: Path, where: str) -> Path:
    """Return the checkpoint of a run's result; any other folder as it is. where: the setting that names the folder."""
    if (result := RunRecord(folder).checkpoints.result) is None and recorded(folder):
        raise BadInput(f"{where}: the run in {near(folder)} has no checkpoint; resume it until it has")
    return result or folder


def changes(config: Config, run: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Return a run's changed settings: by key, the value then and now. A source's file may have moved."""
    if not run.exists:
        return {}
    before, now = flatten(asdict(run.config())), flatten(asdict(config))
    keys = sorted(key for key in before.keys() | now.keys() if unmoved(before.get(key)) != unmoved(now.get(key)))
    return {key: (before.get(key), now.get(key)) for key in keys}


def take_over(folder: Path, kind: Kind, what: str, anew: bool = False, kept: tuple[str, ...] = ()) -> None:
    """Hold a folder and mark it. Raises BadInput as `hold` does, and if it has files and no such mark.

    what: name of the work in the folder. anew: whether a folder with other files than `kept` is renamed first.
    """
    check_free(folder, kind)
    hold(folder, what)
    place, aside = folder.resolve(), None
    if anew and entries(place) - {NOTE, *kept}:
        aside = set_aside(place)
        print(f"{folder} was renamed to {aside.name}: delete that when you do not need it")
        held.discard(place)
        hold(place, what)
    signals.on_leave(partial(give_back, place, aside))
    claim(place, kind)


def take_run(config: Config, folder: Path) -> None:
    """Take over a run's folder, where a run that does not go on is renamed, and an evaluation before any run stays."""
    if not folder.parent.exists():
        signals.on_leave(folder.parent.rmdir)
    begins = not RunRecord(folder).exists
    retained = ("evaluation",) if begins else ()
    take_over(folder, "run", f"run {config.run.name!r}", anew=begins or config.run.overwrite, kept=retained)


def hold(folder: Path, what: str) -> None:
    """Lock a folder until this process ends, and clear its old Ray session. Raises BadInput if it is locked."""
    if (place := folder.resolve()) not in held:
        if lock(place) is None:
            raise BadInput(f"{what} in {folder} is running in another process: wait, or give another name")
        held.add(place)
        clear_session(place)


def check_problems(config: Config, run: RunRecord, digests: dict[str, str], otherwise: str) -> None:
    """Raise BadInput if a run was begun with problems of other digests. otherwise: what to do without the old ones."""
    begun = run.problem_digests()
    others = [part for part, digest in digests.items() if begun is not None and begun.get(part) != digest]
    if others:
        sources = {each.name: (each.key, each.source) for each in config.eval.resolved_benchmarks}
        if config.data.eval_source:
            sources[HELD_OUT_SETS] = "data.eval_source", config.data.eval_source
        key, source = sources.get(others[0], (config.data.key, config.data.origin))
        raise BadInput(
            f"{key}: the run in {run.path} was begun with other problems or answers than {source} gives now: restore"
            f" data and settings, or {otherwise}"
        )


def begin(config: Config, folder: Path, problems: ProblemSet) -> list[str]:
    """Write a run's settings. Return changes as `key=before → now`. Raises BadInput if its problems have changed."""
    run = RunFolder(folder)
    check_problems(config, run, problems.digests, "give run.name=OTHER or run.overwrite=true")
    untold, changed_now = marked("private"), changes(config, run).items()
    run.write_config(dump(config), problems)
    return [f"{key}={then} → {now}" for key, (then, now) in changed_now if not among(key, untold)]
