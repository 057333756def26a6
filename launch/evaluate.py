"""`python launch/evaluate.py conf=NAME [adapter=DIR] benchmarks=[…] n=16 [limit=…] [key=value …]`: how often the base
model, and one with an adapter, solve the problems of benchmarks, and how sure that is.

An adapter of a run is evaluated under that run's settings, which need no conf=NAME. Everything is in the folder
`evaluation/` of the run's folder. The same command goes on where it was cut off.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.errors import ActorDied, root_cause
from actors.messages import AdapterRef
from actors.runtime.placement import Placement, place_engines
from actors.runtime.versions import versions
from actors.storage.files import replace_text
from actors.storage.transcript import Transcript
from conf.adapters import adopt_adapter
from conf.benchmarks import find_benchmarks
from conf.checks import check_lengths
from conf.errors import BadInput
from conf.load import load, run_of
from conf.models import locate, shape_from_config
from conf.schema import Config
from launch.evaluations.figures import comparison, figures
from launch.evaluations.fit import check_engines
from launch.evaluations.protocol import check_data, check_problems, claim, place, protocol_of
from launch.evaluations.view import ExamView, lines, markdown, table
from launch.plan.cards import choose, show_only
from launch.plan.host_needs import check_room, room_of_evaluation
from launch.plan.machine import Machine, check_build, detect
from launch.report import attempt
from launch.session.ray_session import clear_session, ray_session
from launch.session.resume import settle
from launch.session.signals import handle, leave
from rewards.problems.benchmarks import Posed, pose

EXIT_CODES = {"completed": 0, "budget_exhausted": 0, "failed": 1}


@dataclass(frozen=True)
class Examination:
    """A benchmark with what the base model and, if there is one, the adapter said on it."""

    posed: Posed
    base: Transcript
    adapter: Transcript | None

    @property
    def transcripts(self) -> list[Transcript]:
        return [self.base] + ([self.adapter] if self.adapter else [])


@dataclass(frozen=True)
class Evaluation:
    """folder: of everything it leaves behind. protocol: what it was asked for, see `protocol_of`. others: results of
    benchmarks that were asked for before, and not this time.
    """

    config: Config
    folder: Path
    model_path: str
    placement: Placement
    protocol: dict[str, Any]
    exams: list[Examination]
    others: list[dict[str, Any]]

    @property
    def transcripts(self) -> list[Transcript]:
        return [transcript for exam in self.exams for transcript in exam.transcripts]

    @property
    def complete(self) -> bool:
        return all(transcript.complete for transcript in self.transcripts)


def main(arguments: list[str]) -> int:
    """The exit code: 0 done or cut by the budget, 1 failed, 2 bad input, 130 or 143 interrupted."""
    started = time.monotonic()
    handle(leave)  # there is nothing to save yet
    console = Console()
    try:
        config = load(arguments)
        machine = detect(config.device)
        settle(config, machine)
        evaluation = prepare(config, machine, console)
        if evaluation is None:
            return 0
        status = "completed"
        if not evaluation.complete:
            deadline = started + config.budget.seconds
            status = carry_out(evaluation, console, deadline)
        return conclude(evaluation, status, console)
    except BadInput as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    except SystemExit as told:  # by SIGTERM while Ray started, whose handler it then is
        return 128 + int(told.code or 0)


def prepare(config: Config, machine: Machine, console: Console) -> Evaluation | None:
    """Find and check model, adapter and problems, and only then touch the folder; None if only the plan was asked for,
    which is what is printed here.
    """
    if not machine.present:
        raise BadInput(f"device={config.device}: this machine has no {config.device}; leave it out")
    check_build(config, machine, {package.name for package in distributions()})
    if not config.benchmarks:
        raise BadInput("benchmarks=[]: nothing to evaluate on; name some, such as benchmarks=[aime24,amc23]")
    if config.eval.temperature == 0 and config.n > 1:
        raise BadInput(f"n={config.n} with eval.temperature=0: all samples would be the same; set n=1")
    model_path = locate(config.model)
    shape = shape_from_config(model_path)
    check_lengths(config, shape.context)
    adapter = adopt_adapter(config, model_path)
    placement = place_engines(machine.cores, machine.gpus)
    check_engines(config, shape, machine, placement)
    run = run_of(config.adapter)
    folder = place(config, run)
    if run:
        check_data(config, run)
        console.print(f"Settings of the run in {run}", soft_wrap=True, highlight=False, markup=False)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    posed = [pose(benchmark, config, tokenizer) for benchmark in find_benchmarks(config.benchmarks)]
    if run:
        check_problems(config, run, posed)
    for each in posed:
        dropped = "".join(f"; {count} dropped: {reason}" for reason, count in each.dropped.items())
        policies = ", by base model and adapter" if adapter else ""
        console.print(
            f"{each.benchmark.name}: {len(each.problems)} problems × {config.n} samples{policies}{dropped}",
            highlight=False,
        )
    if config.plan:
        return None
    protocol = protocol_of(config, model_path, adapter)
    names = {each.benchmark.name for each in posed}
    others = [result for result in claim(folder, config, protocol) if result["name"] not in names]
    served = AdapterRef(0, 0, str(adapter.folder)) if adapter else None
    exams = [
        Examination(
            each,
            transcript(folder, each, config.n, None),
            transcript(folder, each, config.n, served) if served else None,
        )
        for each in posed
    ]
    return Evaluation(config, folder, model_path, placement, protocol, exams, others)


def transcript(folder: Path, posed: Posed, n: int, adapter: AdapterRef | None) -> Transcript:
    policy = "adapter" if adapter else "base"
    return Transcript(folder / "samples" / f"{posed.benchmark.name}-{policy}.jsonl", posed.problems, n, adapter)


def carry_out(evaluation: Evaluation, console: Console, deadline: float) -> str:
    """Start Ray and the engines and draw what is missing; how that ended: completed, budget_exhausted, failed, or the
    name of a signal. deadline: of time.monotonic.
    """
    config, placement, folder = evaluation.config, evaluation.placement, evaluation.folder
    check_room(room_of_evaluation(config, shape_from_config(evaluation.model_path), placement), folder)
    show_only(choose(detect(config.device).cards, placement, learner=0.0))
    cause: BaseException | None = None
    with ray_session(config, placement, folder, dashboard=False) as (session, _, _):
        from launch.evaluations.session import Examiner

        with ExamView(console, evaluation.transcripts) as view:
            examiner = Examiner(config, evaluation.model_path, placement, view.note)
            work = examiner.run(
                evaluation.transcripts, deadline, lambda: record(evaluation, "running"), view.show, _on_signals
            )
            try:
                status = asyncio.run(work)
            except Exception as error:
                cause = root_cause(error)
                if not isinstance(cause, ActorDied | BadInput):
                    raise
    if isinstance(cause, ActorDied):
        console.print(f"failed: {cause}; more is in {session / 'logs'}", highlight=False, markup=False)
        return "failed"
    clear_session(folder)
    if cause is not None:
        raise cause
    return status


def _on_signals(stop: Callable[[str], None]) -> None:
    """Have the first signal stop the drawing and the second leave at once."""
    received: list[int] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(128 + received[0])
        stop(number.name)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)


def record(evaluation: Evaluation, status: str) -> dict[str, Any]:
    """Write evaluation.json and evaluation.md from all that is complete; the content of the former."""
    config, exams = evaluation.config, evaluation.exams
    file = evaluation.folder / "evaluation.json"
    drawn_before = status == "completed" and file.exists()
    document = {
        "status": status,
        "protocol": evaluation.protocol,
        "benchmarks": evaluation.others + [result for exam in exams if (result := result_of(exam, config))],
        "versions": json.loads(file.read_text())["versions"] if drawn_before else versions(),
    }
    replace_text(evaluation.folder / "evaluation.md", markdown(document))
    replace_text(file, json.dumps(document, indent=2) + "\n")
    return document


def result_of(exam: Examination, config: Config) -> dict[str, Any] | None:
    """What was asked of a benchmark, and its figures over the rounds that all its policies have; None without any."""
    rounds = min(transcript.rounds for transcript in exam.transcripts)
    if not rounds:
        return None
    samples = [transcript.samples(rounds) for transcript in exam.transcripts]
    results = [figures(own) | transcript.cost for own, transcript in zip(samples, exam.transcripts, strict=True)]
    return {
        "name": exam.posed.benchmark.name,
        "source": exam.posed.benchmark.source,
        "problems": len(exam.posed.problems),
        "dropped": exam.posed.dropped,
        "n": config.n,
        "limit": config.limit,
        "base": results[0],
        "adapter": results[1] if exam.adapter else None,
        "paired": comparison(*samples) if exam.adapter else None,
    }


def conclude(evaluation: Evaluation, status: str, console: Console) -> int:
    """Write and show the results; the exit code."""
    document = record(evaluation, status)
    if document["benchmarks"]:
        console.print(table(document))
    for line in lines(document):
        console.print(line, highlight=False, markup=False)
    if not evaluation.complete:
        console.print(f"{status}: the same command goes on from here", highlight=False)
    console.print(f"{evaluation.folder}: evaluation.json, evaluation.md, samples/", soft_wrap=True, highlight=False)
    if (run := evaluation.folder.parent).joinpath("config.yaml").exists():
        console.print(f"Report: {attempt(run)}", soft_wrap=True, highlight=False, markup=False)
    return EXIT_CODES[status] if status in EXIT_CODES else 128 + signal.Signals[status]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
