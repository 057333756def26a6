"""Reads the runs of a sweep from its command line, and refuses what cannot be compared or had."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, get_origin

from microbudget_rl.actors.evaluation.folder import EvaluationFolder
from microbudget_rl.actors.storage.documents import SweepDocument
from microbudget_rl.actors.storage.files import read_document
from microbudget_rl.conf.arguments import pairs
from microbudget_rl.conf.catalogue import find_benchmarks
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import (
    bare,
    beyond,
    command_line,
    compares_models,
    flatten,
    read_value,
    recipe_names,
    written,
)
from microbudget_rl.conf.schema import Call, CommandLine, DataConfig, SweepCommandLine, SweepConfig, affecting, among
from microbudget_rl.conf.schema.run import PLAIN_NAME
from microbudget_rl.conf.settings import settings, show
from microbudget_rl.launch.sweep_runs.jobs import MODEL, SEED, Evaluation, Grid, SweepRun, named
from microbudget_rl.rewards.problems import sources
from microbudget_rl.rewards.problems.loading import EVAL_SEED, TRAIN_SEED
from microbudget_rl.rewards.problems.sources import GENERATED

AXES = {"ranks": "lora.rank", "seeds": SEED}
"""Short names of the usual axes."""

SHORT = {"benchmarks": "sweep.benchmarks", "n": "sweep.n"}
"""Short names of the settings of evaluations."""

REMEDIES = {item.path: item.not_for_sweeps for item in settings(CommandLine) if item.not_for_sweeps}
"""Remedies by setting that a sweep refuses."""

BUDGET = {"budget.hours", "budget.minutes"}

CALL = {item.path for item in settings(Call)}

LISTS = {item.path for item in settings(SweepCommandLine) if get_origin(item.kind) is list}

FOLLOWED = {item.path: item.follows for item in settings(CommandLine)}


def read_grid(arguments: Sequence[str]) -> Grid:
    """Return the sweep of a command line, where a list is an axis. Raises BadInput for anything else."""
    texts = _settings(arguments)
    conf = texts.pop("conf", "")
    for_sweep = [key for key in texts if key in ("run.folder", "limit") or key.startswith("sweep.")]
    asked = command_line([f"conf={conf}", *(f"{key}={texts.pop(key)}" for key in for_sweep)], SweepCommandLine)
    if asked.sweep.seconds is not None and (both := BUDGET & texts.keys()):
        raise BadInput(f"{both.pop()} and a budget of the whole sweep are given: keep one")
    find_benchmarks(asked.sweep.benchmarks)  # refuses any that are not known or share a name
    n, pass_at = asked.sweep.n, asked.sweep.pass_at
    if asked.sweep.benchmarks and n < (most := max(pass_at, default=1)):
        fewer = show(sorted({*(k for k in pass_at if k < n), n}))
        raise BadInput(f"n={n}: sweep.pass_at has {most}; give n={most}, or sweep.pass_at={fewer}")
    axes = _take_axes(texts, asked.sweep)
    name = asked.sweep.name or f"{bare(conf)}-sweep"
    if not PLAIN_NAME.allows(name):
        raise BadInput(f"sweep.name={name} is not possible: {PLAIN_NAME.remedy}")
    folder = Path(asked.run.folder) / name
    pinned = [*(f"{key}={text}" for key, text in texts.items()), f"run.folder={folder}"]
    order = sorted(axes, key=lambda key: (key != SEED, key not in MODEL))
    shown = sorted(order, key=lambda key: key == SEED)
    runs: list[SweepRun] = []
    for values in product(*(axes[key] for key in order)):
        chosen = dict(zip(order, values, strict=True))
        overrides = {key: chosen[key] for key in shown}
        word = "-".join(named(key, value) for key, value in overrides.items())
        varied = [written(key, value) for key, value in overrides.items() if key != "conf"]
        model = overrides.get("conf", conf)
        of_sweep = beyond(conf, model) if conf != model and compares_models(conf) else {}
        taken = {*texts, *overrides, *(BUDGET if asked.sweep.seconds else ())}
        more = [written(key, of_sweep[key]) for key in of_sweep if taken.isdisjoint({key, FOLLOWED.get(key)})]
        given = [f"conf={model}", *more, *varied, *pinned, f"run.name={word}"]
        of_run = command_line(given, CommandLine)
        runs.append(SweepRun(word, overrides, tuple(given), of_run.config))
    word, times = Counter(run.name for run in runs).most_common(1)[0]
    if times > 1:
        raise BadInput(f"{times} runs would be named {word}: list each value once, and paths whose last parts differ")
    if len({run.config.device for run in runs}) > 1:
        raise BadInput("device: all runs of a sweep are on one machine; give one value")
    grid = Grid(name, conf, asked.sweep, axes, tuple(runs), folder, of_run.plan, of_run.simulate, asked.limit)
    bases: dict[str, Evaluation] = {}
    for run in runs if asked.sweep.benchmarks else ():
        base = "-".join(["base", *(named(key, value) for key, value in run.of_model.items())])
        run.evaluations.append(Evaluation(grid, run.name, run, bases.setdefault(base, Evaluation(grid, base, run))))
    if taken := bases.keys() & {run.name for run in runs}:
        raise BadInput(f"a run and a base model's evaluation would both be named {taken.pop()}: rename the model")
    return grid


def _settings(arguments: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, text in pairs(arguments, "conf=quickstart or ranks=[8,64]", (*AXES, "models")).items():
        target = (AXES | SHORT).get(key, key)
        if target in texts:
            raise BadInput(f"{key}={text}: {target} is twice on the command line; keep one")
        if key in REMEDIES:
            raise BadInput(f"{key}={text} is not for a sweep: {REMEDIES[key]}")
        texts[target] = text
    return texts


def _take_axes(texts: dict[str, str], sweep: SweepConfig) -> dict[str, list[Any]]:
    """Move the axes out of the settings; those of the recipe count where the command line has no such setting."""
    axes: dict[str, list[Any]] = {}
    for name, values in {"models": sweep.models, **{AXES[each]: getattr(sweep, each) for each in AXES}}.items():
        if values and not (name == "models" and "model.path" in texts):
            texts.setdefault(name, written(name, values).partition("=")[2])
    for key, text in list(texts.items()):
        values = read_value(key, text, axis=True)
        if key == "models" and isinstance(values, str):
            values = [values]
        if not isinstance(values, list) or (key in LISTS and not isinstance(next(iter(values), None), list)):
            continue
        if key in CALL:
            raise BadInput(f"{key}={text}: it is of the command and not of a run; give one value")
        if not values:
            raise BadInput(f"{key}=[]: an axis without values; list some, or leave it out")
        del texts[key]
        if key == "models":
            recipes = [name in recipe_names() for name in values]
            if any(recipes) != all(recipes):
                raise BadInput(f"{key}={text}: recipes and paths are mixed; name either recipes or paths of models")
            key = "conf" if all(recipes) else "model.path"
        axes[key] = values
    if not axes:
        raise BadInput("nothing to sweep: give a list, such as ranks=[8,64], seeds=[0,1,2] or lora.alpha=[16,32]")
    return axes


def check_comparable(grid: Grid) -> None:
    """Raise BadInput if runs would be chosen on different problems, or differ from their base model's evaluation."""
    first, *others = (flatten(asdict(run.config)) for run in grid.runs)
    varied = [key for key in first if any(other.get(key) != first[key] for other in others)]
    validated = {bool(run.config.validation_problems) for run in grid.runs}
    if len(validated) > 1:
        raise BadInput("validation.every: only some runs would have their result chosen; give 0 for all, or for none")
    data = [run.config.data for run in grid.runs]
    held_out = [one.eval_source or one.source for each in data for one in each.by_source.values()]
    sized = any(source.startswith(GENERATED) for source in held_out)
    selection = affecting("held_out", *["split"] * any(not each.eval_source for each in data))
    free = () if sized else ("data.size",)
    for key in (key for key in varied if True in validated and among(key, selection) and key not in free):
        raise BadInput(f"{key}: validation would choose on different problems in the runs; give one value for all")
    fixed = affecting("evaluation", "prompt", "response", "verdict")
    for key in (key for key in grid.axes if grid.settings.benchmarks and among(key, fixed)):
        raise BadInput(f"{key}: a base model is evaluated once for all of its runs; give one value, or benchmarks=[]")


def check_known(grid: Grid) -> None:
    """Raise BadInput if the sweep's folder has more runs, or evaluations of other benchmarks, n or seed."""
    if (sweep := read_document(grid.folder / "sweep.json", SweepDocument)) is None:
        return
    name, asked, other = f"sweep {grid.name!r}", [run.overrides for run in grid.runs], "or give sweep.name=OTHER"
    if left_out := [entry.name for entry in sweep.runs if entry.overrides not in asked]:
        raise BadInput(f"{name} has a run {left_out[0]} that this command leaves out: list its values too, {other}")
    then, now = (f"benchmarks={show(each.benchmarks)} n={each.n}" for each in (sweep, grid.settings))
    if sweep.benchmarks and then != now:
        raise BadInput(f"{name} was begun with {then}, not {now}: give the same, {other}")
    for folder in (grid.folder / base.name / "evaluation" for base in sweep.bases):
        if (known := EvaluationFolder(folder).document()) and (seed := known.protocol.seed) != grid.seed:
            raise BadInput(f"{folder} has the seed {seed}, not {grid.seed}: list that seed first, {other}")


def check_sources(grid: Grid) -> None:
    """Raise BadInput for a source of problems that unfinished runs cannot read. A generator makes only one."""
    read: list[tuple[str, DataConfig]] = []
    for data in (run.config.data for run in grid.runs if not run.record.finished()):
        held_out = replace(data, source=data.eval_source, mixture=[])
        for key, each, seed in (
            *((data.key, one, TRAIN_SEED) for one in data.by_source.values()),
            ("data.eval_source", held_out, EVAL_SEED),
        ):
            size = 1 if each.source.startswith(GENERATED) else each.size
            one = replace(each, eval_source="", size=size)
            if one.source and (key, one) not in read:
                read.append((key, one))
                sources.read(key, one.source, one, seed)
