"""The project from Python: `import microbudget_rl as mb`.

All but `plan` and `open` carry out a command in a process of its own, print its output, and wait for its end; an
asyncio program calls them by `asyncio.to_thread`. An interrupt ends the command gracefully, with a checkpoint, and the
function returns what there is. The command also ends with the process that has called.
"""

import io
import json
import os
import re
import shlex
import signal as signals
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack

from microbudget_rl.actors.coordinator.budget import cost_of
from microbudget_rl.actors.runtime.process import end_with
from microbudget_rl.actors.storage.documents import EvaluationDocument, Result, RunSummary
from microbudget_rl.actors.storage.files import read_document, replace_text
from microbudget_rl.actors.storage.run_record import RunRecord
from microbudget_rl.conf.catalogue import SOURCES
from microbudget_rl.conf.command import BAD_INPUT, INTERRUPTED, PlainConsole
from microbudget_rl.conf.errors import BadInput as BadInput
from microbudget_rl.conf.errors import in_brief
from microbudget_rl.conf.load import load, written
from microbudget_rl.launch.after.trained import find_run
from microbudget_rl.launch.plan.measurements import Signal, kept_in, known, recipe_of
from microbudget_rl.launch.plan.plan import Plan
from microbudget_rl.launch.plan.view import render_plan
from microbudget_rl.launch.reporting import conclusion
from microbudget_rl.launch.reporting.history import read_run
from microbudget_rl.launch.reporting.run_conclusion import effect
from microbudget_rl.launch.reporting.tables import BeforeAfter, pairs_by_outcome
from microbudget_rl.launch.run import plan_here
from microbudget_rl.launch.samples import OPTIONS, chosen
from microbudget_rl.rewards.problems.loading import lasting
from microbudget_rl.rewards.shipped import FOLDER, place_of, ship

Problems = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
Part = str | Callable[..., Any]

WEIGHTS = ("accuracy", "format", "boxed", "cosine")

ENDS = (0, 1, 3, 130, 143)
"""Exit codes after which a folder has what there is."""

_free = threading.Lock()
_shipped: dict[str, bytes] = {}
"""This session's functions by digest, as the files of the reward workers."""


class Asked(TypedDict, total=False):
    """What a call asks for; all of it may be left out.

    problems: a path, a source as in data.source, a list of dicts, a datasets.Dataset or a pandas DataFrame
    reward: all of it: a preset's name, a part, or parts with their weights; a part is a function, its name as
        `module:function`, or accuracy, format, boxed or cosine
    minutes: the time budget, start and evaluations included; of `signal`, the most minutes of sampling
    settings: others by dotted key, such as {"lora.rank": 32, "run.name": "first"}
    """

    problems: Problems | None
    reward: Part | Mapping[Part, float] | None
    minutes: float | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Forecast:
    """A plan, which is shown as the command shows it.

    fits: whether the run fits into the machine's memory. updates: expected number. hours: with start and evaluations.
    cost: of these hours, in the currency of the price. The last three are None if unknown. plan: all of it.
    """

    plan: Plan
    fits: bool
    updates: int | None = None
    hours: float | None = None
    cost: float | None = None

    def __repr__(self) -> str:
        PlainConsole(file=(text := io.StringIO()), width=100).print(render_plan(self.plan))
        return text.getvalue()


class Run:
    """A run in a folder, running or finished. A notebook shows its short report.

    record: all its files
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).absolute()
        self.record = RunRecord(self.folder)

    def __repr__(self) -> str:
        return f"{self.folder}: {conclusion(self.folder)}"

    def _repr_markdown_(self) -> str:
        return report.read_text("utf-8") if (report := self.report.with_suffix(".md")).exists() else repr(self)

    @property
    def summary(self) -> RunSummary | None:
        """summary.json: status, updates, spent_s, eval, …; None until the run has ended."""
        return self.record.summary()

    @property
    def result(self) -> Result | None:
        """The update that the run returns, and why that one."""
        return summary.result if (summary := self.summary) else None

    @property
    def metrics(self) -> list[dict[str, float]]:
        """A row per update: shares are 0 to 1, times seconds."""
        return [row.metrics for row in self.record.rows()]

    @property
    def adapter(self) -> Path | None:
        """Folder of the result's adapter, in PEFT's format; None without a checkpoint."""
        return (checkpoint := self.record.checkpoints.result) and checkpoint / "adapter"

    @property
    def report(self) -> Path:
        """The page that is written when the run ends."""
        return self.record.report

    def samples(self, show: str = "changed") -> list[BeforeAfter]:
        """Return responses to held-out problems before and after training, one pair of each problem.

        show: changed, worse (right before, wrong after), better, wrong or right (both times), or all.
        """
        if show not in OPTIONS["show"]:
            raise BadInput(f"show={show}: use one of {', '.join(OPTIONS['show'])}")
        return chosen(pairs_by_outcome(*map(self.record.samples, ("eval-base", "eval-final"))), show)

    def plot(self) -> Any:
        """Return the learning curve, which a notebook shows; None without updates."""
        from microbudget_rl.launch.reporting.plots import learning_curve  # matplotlib takes a second to import

        return learning_curve(run := read_run(self.folder), effect(run))

    def resume(self, **asked: Unpack[Asked]) -> "Run":
        """Continue the run by its own command. minutes: with those that are spent. reward: the same one, if another
        session has shipped it.
        """
        _command("run", self._resuming(asked), ENDS)
        return self

    def _resuming(self, asked: Asked) -> list[str]:
        place = {"run.name": self.folder.name, "run.folder": self.folder.parent, "run.overwrite": False}
        words = [*shlex.split(self.record.origin().command)[2:], *_words(asked, place)]
        return list({word.partition("=")[0]: word for word in words}.values())

    def export(self, to: str | os.PathLike[str], **options: str) -> Path:
        """Write the merged model into a new folder, and verify it. options: type="float32", checkpoint="latest"."""
        _command("export", [str(self.folder), *(f"{key}={value}" for key, value in {"to": to, **options}.items())])
        return Path(to)


def open(folder: str | os.PathLike[str]) -> Run:  # noqa: A001
    """Return the run in a folder. Raises BadInput if there is none."""
    return Run(find_run(Path(folder)).path)


def plan(name: str, device: str = "auto", price_per_hour: float | None = None, **asked: Unpack[Asked]) -> Forecast:
    """Plan a run of a recipe, in this process. device: a GPU such as "4090", its memory such as "12GB", or cpu."""
    words = _words(asked, {"device": device, "budget.price_per_hour": price_per_hour})
    found = plan_here(load([f"conf={name}", *words]))
    if not found.fits or (mean := found.estimate) is None:
        return Forecast(found, found.fits)
    cost = cost_of(found.config.budget.price_per_hour, mean.spent_s)
    return Forecast(found, True, mean.updates, mean.spent_s / 3600, cost)


def preview(name: str, **asked: Unpack[Asked]) -> None:
    """Print which rows a recipe reads, their reference answers, and prompts."""
    _command("problems", [f"conf={name}", *_words(asked, {})])


def signal(name: str, **asked: Unpack[Asked]) -> Signal:
    """Sample training problems of a recipe, and say whether a run is worth it.

    Return the verdict, a warning if it is against a run, and figures such as pass@1 and useful (groups with variance),
    each from 0 to 1 with its interval.
    """
    arguments = [f"conf={name}", *_words(asked, {}, minutes="signal.minutes")]
    config = plan_here(load(arguments)).config
    before = (file := kept_in(config)).exists() and file.stat().st_mtime_ns
    _command("doctor", [*arguments, "measure=signal"], (0, 1))
    if before == (file.exists() and file.stat().st_mtime_ns):
        raise RuntimeError("nothing was sampled; see the lines above")
    return known(config).signals[recipe_of(config)]


def train(name: str, **asked: Unpack[Asked]) -> Run:
    """Train by a recipe, or resume an interrupted run. name: a recipe's, or the path of one."""
    arguments = [f"conf={name}", *_words(asked, {})]
    config = load(arguments).run
    run = Run(Path(config.folder, config.name))
    _command("run", arguments, ENDS)
    return run


def evaluate(
    run: Run, problems: Problems | None = None, benchmarks: Sequence[str] = (), n: int = 16, **settings: Any
) -> EvaluationDocument | None:
    """Measure a run's base model and its result on problems and benchmarks, without any on the held-out problems.

    n: samples per problem. Return all that has been measured so far in the run's folder.
    """
    own = [] if problems is None else [_source(problems, run.folder.parent)]
    given = {"adapter": str(run.folder), "benchmarks": [*own, *benchmarks] or ["heldout"], "n": n, **settings}
    _command("evaluate", _words({"settings": given}, {}), ENDS)
    return read_document(run.record.evaluation_folder / "evaluation.json", EvaluationDocument)


def _words(asked: Asked, given: Mapping[str, Any], minutes: str = "budget.minutes") -> list[str]:
    """Return the arguments of a command. given: settings by key, before those that are asked for. minutes: its key."""
    given = {**given, **asked.get("settings", {})}
    if (problems := asked.get("problems")) is not None:
        given["data.source"] = _source(problems, Path(given.get("run.folder", "runs")))
    if (reward := asked.get("reward")) is not None:
        given = {**_reward(reward), **given}
    if asked.get("minutes") is not None:
        given = {minutes: asked["minutes"], **given}
    return [written(key, str(value) if isinstance(value, Path) else value) for key, value in given.items()]


def _source(problems: Problems, folder: Path) -> str:
    """Return problems as a source. Rows go into a file in the folder of all runs that is named by its content."""
    if isinstance(problems, str | os.PathLike):
        text = os.fspath(problems)
        is_path = text.startswith("file:") or not SOURCES.fullmatch(text)
        return f"file:{Path(text.removeprefix('file:')).expanduser().absolute()}" if is_path else text
    table: Any = problems
    rows = table.to_dict("records") if hasattr(table, "columns") else table  # of a DataFrame
    try:
        lines = "".join(json.dumps(dict(row), default=lasting) + "\n" for row in rows)
    except (TypeError, ValueError) as error:
        raise BadInput(f"problems: {in_brief(error)}: give a path, or rows that are dicts of named values") from error
    file = folder.absolute() / ".problems" / f"{blake2b(lines.encode(), digest_size=8).hexdigest()}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, lines)
    return f"file:{file}"


def _reward(reward: Part | Mapping[Part, float]) -> dict[str, Any]:
    """Return the settings of a reward. Raises BadInput for a function that cannot be shipped."""
    if isinstance(reward, str) and ":" not in reward and reward not in WEIGHTS:
        return {"reward.preset": reward}
    parts = reward if isinstance(reward, Mapping) else {reward: 1.0}
    weights = {f"reward.{name}": parts.get(name, 0.0) for name in WEIGHTS}
    custom = [{"function": _reference(part), "weight": parts[part]} for part in parts if part not in WEIGHTS]
    return {**weights, "reward.custom": custom}


def _reference(part: Part) -> str:
    if isinstance(part, str):
        return part
    if not callable(part):
        raise BadInput(f"reward: {part!r} is no function and no module:function: give one")
    if place := place_of(part):
        return place
    reference, _shipped[reference.rpartition(":")[2]] = ship(part)
    return reference


def _command(name: str, arguments: list[str], expected: Sequence[int] = (0,)) -> None:
    """Carry out a command and print its output. expected: its exit codes.

    Raises BadInput with the sentence that the command prints, and RuntimeError for another exit code.
    """
    modules = os.pathsep.join(filter(None, sys.path))  # a script's folder among them, for functions that it imports
    environment = {"PYTHONPATH": modules, "FORCE_COLOR": ""}  # Jupyter sets the latter: there is no terminal
    if not _free.acquire(blocking=False):
        raise BadInput("another call is at work in this process: wait for its end, or use another process")
    try:
        with TemporaryDirectory(prefix="microbudget-") as folder, Path(folder, "errors").open("w+") as errors:
            for digest, content in _shipped.items():
                Path(folder, digest).write_bytes(content)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(os.getpid()), name, *arguments],
                env=os.environ | {FOLDER: folder, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="backslashreplace",
                start_new_session=True,  # a terminal's Ctrl-C is for this process, which passes it on
            )
            assert process.stdout
            while process.poll() is None:
                try:
                    for line in process.stdout:
                        print(line, end="", flush=True)
                    process.wait()
                except KeyboardInterrupt:
                    process.send_signal(signals.SIGINT)
            errors.seek(0)
            said = errors.read()
    finally:
        _free.release()
    if process.returncode == BAD_INPUT:
        raise BadInput(*re.split(rf"^{name}(?:\.py)?: ", said, flags=re.MULTILINE)[-1].splitlines())
    print(said, end="", file=sys.stderr)
    if process.returncode not in expected:
        raise KeyboardInterrupt if process.returncode == INTERRUPTED else RuntimeError(f"{name} has failed: see above")


if __name__ == "__main__":  # the process of a command
    from microbudget_rl.launch.__main__ import from_the_shell

    end_with(int(sys.argv.pop(1)))
    sys.exit(from_the_shell())
