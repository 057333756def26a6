"""Reads the runs of a sweep from its command line."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, ClassVar, get_origin

from actors.storage.run_record import RunRecord
from conf.arguments import pairs
from conf.catalogue import find_benchmarks
from conf.errors import BadInput
from conf.load import bare, beyond, command_line, compares_models, read_value, recipe_names, written
from conf.schema import Call, CommandLine, Config, SweepCommandLine, SweepConfig
from conf.schema.run import PLAIN_NAME
from conf.settings import changed, settings, show
from launch.plan.signal import Signal, recall_signal

SEED = "run.seed"

AXES = {"ranks": "lora.rank", "seeds": SEED}
"""Short names of the usual axes."""

EXAM = {"benchmarks": "sweep.benchmarks", "n": "sweep.n"}
"""Short names of the settings of exams."""

SHORT = {"lora.rank": "r", "run.seed": "seed", "conf": "", "model.path": ""}
"""Prefixes of an axis's value in a run's name. For other axes it is the last part of the key and an equals sign."""

REMEDIES = {item.path: item.not_for_sweeps for item in settings(CommandLine) if item.not_for_sweeps}
"""Remedies by setting that a sweep refuses."""

MODEL = ("conf", "model.path")
"""Axes that change the model, so that accuracies are not comparable."""

BUDGET = {"budget.hours", "budget.minutes"}

MOST_RUNS = 1000
"""Largest number of runs in a sweep."""

CALL = {item.path for item in settings(Call)}

LISTS = {item.path for item in settings(SweepCommandLine) if get_origin(item.kind) is list}

FOLLOWED = {item.path: item.follows for item in settings(CommandLine)}


@dataclass(eq=False)
class SweepRun:
    """One run of a sweep.

    overrides: its value on each axis.
    arguments: those of its `launch/run.py`.
    config: the settings that the arguments stand for; its budget is the run's part of the sweep's.
    status, reason: as in sweep.json.
    program: the file in launch/ that carries it out.
    inquiry: what the doctor is asked of its model before.
    """

    program: ClassVar = "run"
    kind: ClassVar = "run"
    name: str
    overrides: dict[str, Any]
    arguments: tuple[str, ...]
    config: Config
    status: str = "pending"
    reason: str | None = None
    inquiry: "Inquiry | None" = None

    def set(self, key: str, value: object) -> None:
        """Give the run another value of a setting."""
        self.config = changed(self.config, {key: value})
        self.arguments = (*(each for each in self.arguments if not each.startswith(f"{key}=")), f"{key}={value}")

    @property
    def record(self) -> RunRecord:
        return RunRecord(Path(self.config.run.folder) / self.name)

    @property
    def folder(self) -> Path:
        return self.record.path

    @property
    def outcome(self) -> tuple[str, str | None] | None:
        """Its status and the reason, according to its folder; None for a run that has not ended."""
        summary = self.record.summary()
        return summary and (summary.status, summary.reason)

    @property
    def finished(self) -> bool:
        return self.record.finished() is not None

    @property
    def of_model(self) -> dict[str, Any]:
        """Its values on the axes that change the model."""
        return {key: value for key, value in self.overrides.items() if key in MODEL}

    @property
    def base(self) -> str:
        """The name of its base model among the jobs of the sweep."""
        return "-".join(["base", *(named(key, value) for key, value in self.of_model.items())])


@dataclass(eq=False)
class Inquiry:
    """Asks the doctor whether a base model can learn from the problems of its first run. Its answer is in the sweep's
    folder. minutes: at most for sampling.
    """

    program, kind = "doctor", "signal"
    run: SweepRun
    minutes: float
    status: str = "pending"
    reason: str | None = None

    def __post_init__(self) -> None:
        self.name, self.overrides = self.run.base, self.run.of_model
        self.folder = self.run.folder.parent / self.name

    @property
    def arguments(self) -> list[str]:
        """The arguments of launch/doctor.py, with the run's part of the sweep's budget."""
        own = [each for each in self.run.arguments if not each.startswith("budget.minutes=")]
        return [*own, f"budget.minutes={self.run.config.budget.seconds / 60}", "measure=signal"]

    @property
    def answer(self) -> Signal | None:
        return recall_signal(self.run.config, self.folder.parent)

    @property
    def finished(self) -> bool:
        return self.answer is not None

    @property
    def outcome(self) -> tuple[str, str | None] | None:
        """As of a run. The reason is the doctor's warning if training is not worth it."""
        return ("completed", self.answer.warning or None) if self.answer else None


@dataclass(frozen=True)
class Grid:
    """A sweep as it was requested.

    runs: seeds change slowest, so that a sweep cut short has compared something.
    folder: the parent of the runs' folders.
    plan: whether only the plan is requested. simulate: with it, numbers of GPUs.
    limit: most problems per benchmark of an exam.
    """

    name: str
    conf: str
    settings: SweepConfig
    axes: dict[str, list[Any]]
    runs: tuple[SweepRun, ...]
    folder: Path
    plan: bool = False
    simulate: Sequence[int] = ()
    limit: int | None = None

    @property
    def inquiries(self) -> list[Inquiry]:
        return [*dict.fromkeys(run.inquiry for run in self.runs if run.inquiry)]


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
    _check_exams(asked.sweep)
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
        runs.append(run := SweepRun(word, overrides, tuple(given), of_run.config))
        if asked.sweep.signal:
            alike = (each.inquiry for each in runs if each.inquiry and each.base == run.base)
            run.inquiry = next(alike, None) or Inquiry(run, of_run.signal.minutes)
    if len({run.config.device for run in runs}) > 1:
        raise BadInput("device: all runs of a sweep are on one machine; give one value")
    word, times = Counter(run.name for run in runs).most_common(1)[0]
    if times > 1:
        raise BadInput(f"{times} runs would be named {word}: list each value once, and paths whose last parts differ")
    return Grid(name, conf, asked.sweep, axes, tuple(runs), folder, of_run.plan, of_run.simulate, asked.limit)


def _check_exams(sweep: SweepConfig) -> None:
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
        target = (AXES | EXAM).get(key, key)
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


def named(key: str, value: Any) -> str:
    """Return the part of a run's name that states its value on an axis."""
    text = value if isinstance(value, str) else json.dumps(value)
    if key in MODEL:
        text = text.rstrip("/").rpartition("/")[2].removeprefix("bundled:")
    start = SHORT.get(key, f"{key.rpartition('.')[2]}=")
    return start + re.sub(r"[^\w.+=@-]+", "_", text).strip("_")
