"""Reads the runs of a sweep from its command line."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, get_origin

from conf.arguments import pairs
from conf.catalogue import find_benchmarks
from conf.errors import BadInput
from conf.load import bare, beyond, command_line, compares_models, read_value, recipe_names, written
from conf.schema import Call, CommandLine, SweepCommandLine, SweepConfig
from conf.schema.run import PLAIN_NAME
from conf.settings import settings, show
from launch.sweep_runs.jobs import MODEL, SEED, Evaluation, Grid, SweepRun, named

AXES = {"ranks": "lora.rank", "seeds": SEED}
"""Short names of the usual axes."""

SHORT = {"benchmarks": "sweep.benchmarks", "n": "sweep.n"}
"""Short names of the settings of evaluations."""

REMEDIES = {item.path: item.not_for_sweeps for item in settings(CommandLine) if item.not_for_sweeps}
"""Remedies by setting that a sweep refuses."""

BUDGET = {"budget.hours", "budget.minutes"}

MOST_RUNS = 1000
"""Largest number of runs in a sweep."""

CALL = {item.path for item in settings(Call)}

LISTS = {item.path for item in settings(SweepCommandLine) if get_origin(item.kind) is list}

FOLLOWED = {item.path: item.follows for item in settings(CommandLine)}


def read_grid(arguments: Sequence[str]) -> Grid:
    """Return the sweep that a command line describes. Raises BadInput for anything else, or if a run is not possible.

    A list is an axis, except for settings that are lists themselves, which take a list of lists. `models` are recipes
    or paths.
    """
    texts = _settings(arguments)
    conf = texts.pop("conf", "")
    own = [key for key in texts if key in ("run.folder", "limit") or key.startswith("sweep.")]
    asked = command_line([f"conf={conf}", *(f"{key}={texts.pop(key)}" for key in own)], SweepCommandLine)
    if asked.sweep.seconds is not None and (both := BUDGET & texts.keys()):
        raise BadInput(f"{both.pop()} and a budget of the whole sweep are given: keep one")
    _check_samples(asked.sweep)
    axes = _take_axes(texts, asked.sweep)
    name = asked.sweep.name or f"{bare(conf)}-sweep"
    if not PLAIN_NAME.allows(name):
        raise BadInput(f"sweep.name={name} is not possible: {PLAIN_NAME.remedy}")
    folder = Path(asked.run.folder) / name
    kept = [*(f"{key}={text}" for key, text in texts.items()), f"run.folder={folder}"]
    if (number := prod(map(len, axes.values()))) > MOST_RUNS:
        raise BadInput(f"{number:,} runs: a sweep has at most {MOST_RUNS:,}; list fewer values, or make several sweeps")
    order = sorted(axes, key=lambda key: (key != SEED, key not in MODEL))
    shown = sorted(order, key=lambda key: key == SEED)
    runs: list[SweepRun] = []
    for values in product(*(axes[key] for key in order)):
        chosen = dict(zip(order, values, strict=True))
        overrides = {key: chosen[key] for key in shown}
        word = "-".join(named(key, value) for key, value in overrides.items())
        varied = [written(key, value) for key, value in overrides.items() if key != "conf"]
        model = overrides.get("conf", conf)
        more = _of_sweep(conf, model, {*texts, *overrides, *(BUDGET if asked.sweep.seconds else ())})
        given = [f"conf={model}", *more, *varied, *kept, f"run.name={word}"]
        of_run = command_line(given, CommandLine)
        runs.append(SweepRun(word, overrides, tuple(given), of_run.config))
    if len({run.config.device for run in runs}) > 1:
        raise BadInput("device: all runs of a sweep are on one machine; give one value")
    word, times = Counter(run.name for run in runs).most_common(1)[0]
    if times > 1:
        raise BadInput(f"{times} runs would be named {word}: list each value once, and paths whose last parts differ")
    grid = Grid(name, conf, asked.sweep, axes, tuple(runs), folder, of_run.plan, of_run.simulate, asked.limit)
    bases: dict[str, Evaluation] = {}
    for run in runs if asked.sweep.benchmarks else ():
        base = "-".join(["base", *(named(key, value) for key, value in run.of_model.items())])
        run.evaluation = Evaluation(grid, run.name, run, bases.setdefault(base, Evaluation(grid, base, run)))
    if taken := bases.keys() & {run.name for run in runs}:
        raise BadInput(f"a run and the evaluation of a base model would both be named {taken.pop()}: rename the model")
    return grid


def _check_samples(sweep: SweepConfig) -> None:
    """Raise BadInput for benchmarks that are not known or share a name, and for too few samples."""
    find_benchmarks(sweep.benchmarks)
    if sweep.benchmarks and sweep.n < (most := max(sweep.pass_at, default=1)):
        fewer = show(sorted({*(k for k in sweep.pass_at if k < sweep.n), sweep.n}))
        raise BadInput(f"n={sweep.n}: sweep.pass_at has {most}; give n={most}, or sweep.pass_at={fewer}")


def _of_sweep(conf: str, model: str, given: set[str]) -> list[str]:
    """Return the arguments that a sweep's recipe adds to a model's. given: settings from elsewhere."""
    own = beyond(conf, model) if conf != model and compares_models(conf) else {}
    return [written(key, own[key]) for key in own if given.isdisjoint({key, FOLLOWED.get(key)})]


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
            if odd := [value for value in values if not isinstance(value, str)]:
                raise BadInput(f"{key}={text}: {show(odd[0])} is no text; name recipes or paths of models")
            recipes = [name in recipe_names() for name in values]
            if any(recipes) != all(recipes):
                raise BadInput(f"{key}={text}: recipes and paths are mixed; name either recipes or paths of models")
            key = "conf" if all(recipes) else "model.path"
        axes[key] = values
    if not axes:
        raise BadInput("nothing to sweep: give a list, such as ranks=[8,64], seeds=[0,1,2] or lora.alpha=[16,32]")
    return axes
