"""The project from Python: `import microbudget_rl as mb`.

All but `plan` and `open` carry out a command in a process of its own, print its output, and wait for its end. `plan`
tries reward functions in such a process. An interrupt, or the end of this process, ends it gracefully, with a
checkpoint. The interrupt is then raised as KeyboardInterrupt, and `open` has the run.
"""

import io
import json
import os
import shlex
import signal as signals
import subprocess
import sys
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack

from microbudget_rl.actors.results import read_run
from microbudget_rl.actors.storage.documents import EvaluationDocument
from microbudget_rl.actors.storage.files import replace_text
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.catalogue import SOURCES
from microbudget_rl.conf.command import BAD_INPUT, INTERRUPTED, PlainConsole
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.installation import check_working_folder
from microbudget_rl.conf.load import command_line, load, written
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.launch.plan.measurements import Signal, known, recipe_of
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.launch.plan.view import render_plan
from microbudget_rl.launch.reporting import conclusion, run_conclusion, tables
from microbudget_rl.launch.run import plan_here
from microbudget_rl.launch.samples import chosen
from microbudget_rl.rewards.problems.loading import lasting
from microbudget_rl.rewards.shipped import CALLER, FOLDER, ship

StrPath = str | os.PathLike[str]
Problems = StrPath | Iterable[Mapping[str, Any]] | None
Part = str | Callable[..., Any]
WEIGHTS = ("accuracy", "format", "boxed", "cosine")

_busy = threading.Lock()
_shipped: dict[str, bytes] = {}  # this session's functions by digest, as the files of the reward workers


class Asked(TypedDict, total=False):
    """What a call asks for; all of it may be left out.

    problems: a path, a source as in data.source, a list of dicts, a datasets.Dataset or a pandas DataFrame
    reward: all of it: a preset's name, a part, a list of parts of weight 1, or parts with their weights; a part is a
        function, its name as `module:function`, or accuracy, format, boxed or cosine
    minutes: the time budget, start and evaluations included; of `signal`, the most minutes of sampling
    settings: others by dotted key, such as {"lora.rank": 32, "run.name": "first"}; values of numpy count as Python's
    """

    problems: Problems
    reward: Part | Iterable[Part] | Mapping[Part, float] | None
    minutes: float | None
    settings: Mapping[str, Any]


class Run:
    """A run in a folder, as it is when it is opened and after each call. Raises BadInput if the folder has none.

    summary: as in summary.json: status, updates, spent_s, eval, …; before the end, what is known so far
    result: the update that the run returns, and why that one; None before the end
    metrics: a row per update; fractions are from 0 to 1, times in seconds
    adapter: folder of the result's adapter, in PEFT's format; None without a checkpoint
    report: the page that is written when the run ends
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = _absolute(folder)
        self._files = read_run(self.folder)
        record = self._files.record
        self.summary, self.result = self._files.summary, self._files.summary.result
        self.metrics = [row.metrics for row in self._files.rows]
        self.adapter = (checkpoint := record.checkpoints.result) and checkpoint / "adapter"
        self.report = record.report

    def __repr__(self) -> str:
        return f"{self.folder}: {conclusion(self.folder)}"

    def _repr_markdown_(self) -> str:
        return report.read_text("utf-8") if (report := self.report.with_suffix(".md")).exists() else repr(self)

    def samples(self, show: str = "changed") -> list[tables.BeforeAfter]:
        """Return a response before and one after training to each held-out problem. show: changed, worse (right before,
        wrong after), better, wrong or right (both times), or all.
        """
        return chosen(tables.pairs_by_outcome(self._files.samples["base"], self._files.samples["final"]), show)

    def plot(self) -> Any:
        """Return the learning curve, which a notebook shows; None without updates."""
        from microbudget_rl.launch.reporting.plots import learning_curve  # matplotlib takes a second to import

        return learning_curve(self._files, run_conclusion.effect(self._files))

    def resume(self, **asked: Unpack[Asked]) -> "Run":
        """Continue the run by its own command. minutes: with those spent. reward: the same, if another session's."""
        place = {"run.name": self.folder.name, "run.folder": self.folder.parent, "run.overwrite": False}
        command = self._files.origin.command
        if not command:
            raise BadInput(f"{self.folder}/origin.json names no command: call train with its recipe and settings")
        words = [*shlex.split(command)[2:], *_words(place, **asked)]
        try:
            _run([*{word.partition("=")[0]: word for word in words}.values()])
        finally:
            self.__init__(self.folder)  # type: ignore[misc]  # its files have changed
        return self

    def export(self, to: StrPath, **options: str) -> Path:
        """Write the merged model into a new folder, and verify it. options: type="float32", checkpoint="latest"."""
        folder = _absolute(to)
        _command("export.py", [str(self.folder), f"to={folder}", *(f"{key}={value}" for key, value in options.items())])
        return folder


open = Run  # noqa: A001


class ShownPlan(Plan):
    """A plan that Python shows as the command does."""

    def __repr__(self) -> str:
        PlainConsole(file=(text := io.StringIO()), width=100).print(render_plan(self))
        return text.getvalue()


def plan(name: str, device: str | None = None, price_per_hour: float | None = None, **asked: Unpack[Asked]) -> Plan:
    """Plan a run of a recipe, in this process. device: a GPU such as "4090", its memory such as "12GB", or cpu. The
    plan has fits, updates, hours, and cost in the currency of the price, and is shown as the command shows it.
    """
    words = [f"conf={name}", *_words({"device": device, "budget.price_per_hour": price_per_hour}, **asked)]
    made = plan_here(load(words))
    if made.config.reward.custom:
        _command("run.py", [*words, "plan=true"], shown=False)
    return ShownPlan(**{field.name: getattr(made, field.name) for field in fields(made)})


def preview(name: str, **asked: Unpack[Asked]) -> None:
    """Print which rows a recipe reads, their reference answers, and prompts."""
    _command("problems", [f"conf={name}", *_words({}, **asked)])


def signal(name: str, **asked: Unpack[Asked]) -> Signal:
    """Sample training problems of a recipe. Return the answer, a warning if the run is not worth it, and figures such
    as pass@1 and useful (groups with variance in accuracy), with intervals.
    """
    words = [f"conf={name}", *_words({"signal.minutes": asked.pop("minutes", None)}, **asked)]
    config = plan_here(load(words)).config
    _command("doctor.py", [*words, "measure=signal"])
    return known(config).signals[recipe_of(config)]


def train(name: str, **asked: Unpack[Asked]) -> Run:
    """Train by a recipe, or resume an interrupted run. name: a recipe's, or the path of one."""
    return Run(_run([f"conf={name}", *_words({}, **asked)]))


def evaluate(run: Run | StrPath, problems: Problems = None, n: int = 16, **settings: Any) -> EvaluationDocument | None:
    """Measure a run's base model and its result on problems, or else on the held-out ones. Return all that has been
    measured so far in the run's folder. n: samples per problem. settings: others, such as benchmarks=["aime24"].
    """
    folder = (run if isinstance(run, Run) else Run(run)).folder
    sources = [] if problems is None else [_source(problems, folder.parent)]
    sources += _listed(settings.pop("benchmarks", []))
    words = _words({"adapter": folder, "benchmarks": sources or ["heldout"], "n": n}, settings=settings)
    _command("evaluate.py", words, range(256))
    return read_run(folder).evaluation


def _run(words: list[str]) -> Path:
    """Carry out a run. Return its folder."""
    asked = command_line(words, CommandLine)
    if asked.plan or asked.show:
        raise BadInput("settings: with plan or show, no run starts: leave them out, or call plan")
    _command("run.py", words, range(256))
    if not RunRecord(asked.run.path).exists:
        raise RuntimeError("run.py has failed: see above")
    return asked.run.path


def _words(
    fixed: dict[str, Any],
    problems: Any = None,
    reward: Any = None,
    minutes: Any = None,
    settings: Any = None,
    **rest: Any,
) -> list[str]:
    """Return the arguments of a command: fixed settings except None, and what the call asks for, see Asked."""
    check_working_folder()
    if rest:
        raise BadInput(f"{', '.join(rest)}: no such argument; use problems, reward, minutes or settings={{KEY: VALUE}}")
    extra = {key: value for key, value in {**fixed, "budget.minutes": minutes}.items() if value is not None}
    if isinstance(reward, str) and ":" not in reward and reward not in WEIGHTS:
        extra["reward.preset"] = reward
    elif reward is not None:
        parts = reward.items() if isinstance(reward, Mapping) else [(part, 1.0) for part in _listed(reward)]
        named = [(part if isinstance(part, str) else ship(part, _shipped), weight) for part, weight in parts]
        extra |= {f"reward.{name}": dict(named).get(name, 0.0) for name in WEIGHTS}
        extra["reward.custom"] = [{"function": name, "weight": weight} for name, weight in named if name not in WEIGHTS]
    try:
        settings = settings or {}
        values = json.loads(
            json.dumps(
                {**extra, **settings},
                default=lambda value: value.tolist() if hasattr(value, "tolist") else os.fspath(value),
            )
        )
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"settings={settings!r}, {extra}: {error}: give numbers, texts and lists by key, as in {{'lora.rank': 32}}"
        ) from error
    if problems is not None:
        extra["data.source"] = values["data.source"] = _source(problems, values.get("run.folder", "runs"))
    for key in extra.keys() & settings:
        raise BadInput(f"{key}={settings[key]} in settings: the call gives {extra[key]}; keep one of them")
    return [written(key, value) for key, value in values.items()]


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]


def _absolute(path: Any) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except (TypeError, RuntimeError, OSError) as error:
        raise BadInput(f"{path!r} is no path here ({error}): give another one") from error


def _source(problems: Any, folder: Any) -> str:
    """Return problems as a source. Rows go into a file that is named by its content, in the folder of all runs."""
    if isinstance(problems, str | os.PathLike):
        text = os.fspath(problems).removeprefix("file:")
        return text if SOURCES.fullmatch(text) else f"file:{_absolute(text)}"
    try:
        rows = problems.to_dict("records") if hasattr(problems, "columns") else problems  # of a DataFrame
        lines = "".join(json.dumps(dict(row), default=lasting) + "\n" for row in rows)
        file = _absolute(folder) / ".problems" / f"{blake2b(lines.encode(), digest_size=8).hexdigest()}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, lines)
    except (TypeError, ValueError, AttributeError, OSError) as error:
        raise BadInput(
            f"problems: {error}: give a path, rows that are dicts of named values, or a run.folder for them"
        ) from error
    return f"file:{file}"


def _command(name: str, arguments: list[str], expected: Container[int] = (0, 3), shown: bool = True) -> None:
    """Carry out a command, and print its output if it is shown. expected: its exit codes; 3 is the doctor's for not
    worth it. Raises KeyboardInterrupt after one, BadInput with the command's sentence, and RuntimeError for another
    exit code.
    """
    if _busy.locked():
        raise BadInput("another call is at work in this process: wait for its end, or use another process")
    # a script's folder among them, for functions that it imports; a person may have added a Path
    modules = os.pathsep.join(map(str, filter(None, sys.path)))
    said, interrupted = "", False
    with _busy, TemporaryDirectory(prefix="microbudget-") as folder:
        for digest, content in _shipped.items():
            Path(folder, digest).write_bytes(content)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "microbudget_rl.launch", name.removesuffix(".py"), *arguments],
            env=os.environ
            | {"PYTHONPATH": modules, "PYTHONUNBUFFERED": "1", "FORCE_COLOR": ""}  # Jupyter sets the last one
            | {FOLDER: folder, CALLER: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="backslashreplace",
            start_new_session=True,  # a terminal's Ctrl-C is for this process, which passes it on
        )
        while process.returncode is None:
            try:
                for line in process.stdout or ():
                    if shown:
                        print(line, end="", flush=True)
                    said += line
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
                process.send_signal(signals.SIGINT)
    if interrupted or process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode == BAD_INPUT:
        raise BadInput(*f"\n{said}".rpartition(f"\n{name}: ")[2].splitlines())
    if process.returncode not in expected:
        raise RuntimeError(f"{name} has failed: {'see above' if shown else said}")
