"""Measure how often the base model, and one with an adapter, solve the problems of benchmarks.

    python launch/evaluate.py [conf=NAME] [adapter=FOLDER] benchmarks=[…] n=16 [limit=…] [key=value …]

Examples:

    python launch/evaluate.py adapter=runs/quickstart/checkpoints/latest benchmarks=[heldout] n=8
    python launch/evaluate.py benchmarks=[aime24,amc23] adapter=runs/r64_instruct/checkpoints/latest
    python launch/evaluate.py conf=r64_instruct benchmarks=[file:exam.jsonl] n=4 limit=100

An adapter of a run is evaluated under that run's settings, which need no conf=NAME. The results are in the folder
`evaluation/` of the run's folder. The same command goes on where it was cut off.
"""

import asyncio
import signal
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from actors.errors import ActorDied, root_cause
from actors.messages import AdapterRef
from actors.models.adapters import adopt_adapter
from actors.models.files import load_tokenizer, locate, shape_from_config
from actors.runtime.placement import Placement, place_engines
from actors.runtime.process import VLLM_BUILDS, exit_at_once, handle_signals, software_versions
from actors.runtime.ray_session import clear_session, ray_session
from actors.storage.evaluation_folder import EvaluationFolder, SampleFile
from actors.storage.run_record import RunRecord
from conf.benchmarks import find_benchmarks
from conf.checks import check_lengths
from conf.command import PlainConsole, asks_for_help, command, near
from conf.errors import BadInput
from conf.help import explain
from conf.load import load, run_of
from conf.schema import Config
from launch.evaluation.hardware import check_engines
from launch.evaluation.sampling_protocol import (
    check_heldout_problems,
    check_heldout_settings,
    evaluation_folder,
    protocol_of,
    take_evaluation,
)
from launch.evaluation.scores import comparison, scores
from launch.evaluation.view import EvaluationView, lines, markdown, results
from launch.hardware.cards import choose, show_only
from launch.hardware.machine import Machine, check_build, detect
from launch.plan.host_needs import check_host, needs_of_evaluation
from launch.reporting import attempt
from launch.session.resume import resolve_dtype
from rewards.pool import check_judges
from rewards.problems.benchmarks import BenchmarkProblems, load_benchmark
from rewards.reward import reward_function

EXIT_CODES = {"completed": 0, "budget_exhausted": 0, "failed": 1}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything an evaluation is given.

    protocol: what its samples depend on, see `protocol_of`.
    samples: of each benchmark those of the base model and, if there is one, of the adapter.
    others: results of benchmarks that were asked for before, and not this time.
    """

    config: Config
    folder: EvaluationFolder
    model_path: str
    placement: Placement
    protocol: dict[str, Any]
    samples: list[tuple[BenchmarkProblems, list[SampleFile]]]
    others: list[dict[str, Any]]

    @property
    def sample_files(self) -> list[SampleFile]:
        return [sample_file for _, sample_files in self.samples for sample_file in sample_files]

    @property
    def complete(self) -> bool:
        return all(sample_file.complete for sample_file in self.sample_files)


@command("evaluate.py")
def main(arguments: list[str]) -> int:
    """Return the exit code: 0 done or cut by the budget, 1 failed, 2 bad input, 130 or 143 interrupted."""
    started = time.monotonic()
    handle_signals(exit_at_once)  # there is nothing to save yet
    console = PlainConsole()
    try:
        if asks_for_help(arguments):
            explain(arguments, __doc__)
            return 0
        config = load(arguments)
        machine = detect(config.device)
        resolve_dtype(config, machine)
        evaluation = prepare(config, machine, console)
        if evaluation is None:
            return 0
        status = "completed"
        if not evaluation.complete:
            status = carry_out(evaluation, console, started + config.budget.seconds)
        return conclude(evaluation, status, console)
    except SystemExit as told:  # by SIGTERM while Ray started, whose handler it then is
        return 128 + int(told.code or 0)


def prepare(config: Config, machine: Machine, console: Console) -> Evaluation | None:
    """Find and check model, adapter and problems, and only then touch the folder.

    Return None if only the plan was asked for, which is what is printed here.
    """
    check_request(config, machine)
    model_path = locate(config.model)
    shape = shape_from_config(model_path)
    check_lengths(config, shape.context)
    adapter = adopt_adapter(config, model_path)
    placement = place_engines(machine.cores, machine.gpus)
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    check_engines(config, shape, machine, placement)
    run = run_of(config.adapter)
    folder = evaluation_folder(config, run)
    if run:
        check_heldout_settings(config, run)
        console.print(f"Settings of the run in {near(run)}", soft_wrap=True, highlight=False, markup=False)

    tokenizer = load_tokenizer(model_path, config.model.path)
    posed = [load_benchmark(benchmark, config, tokenizer) for benchmark in find_benchmarks(config.benchmarks)]
    if run:
        check_heldout_problems(config, run, posed)
    for each in posed:
        dropped = "".join(f"; {count} dropped: {reason}" for reason, count in each.dropped.items())
        by = ", by base model and adapter" if adapter else ""
        console.print(
            f"{each.benchmark.name}: {len(each.problems)} problems × {config.n} samples{by}{dropped}",
            highlight=False,
        )
    if config.plan:
        return None
    for wall in check_judges(reward_function(config), posed[0].problems[:1]):
        console.print(f"Judges have no {wall}", soft_wrap=True, highlight=False, markup=False)
    protocol = protocol_of(config, model_path, adapter)
    results = take_evaluation(folder, config, protocol)
    policies = [None, *([AdapterRef(0, 0, str(adapter.folder))] if adapter else [])]
    return Evaluation(
        config=config,
        folder=folder,
        model_path=model_path,
        placement=placement,
        protocol=protocol,
        samples=[
            (each, [folder.sample_file(each.benchmark.name, each.problems, config.n, policy) for policy in policies])
            for each in posed
        ],
        others=[result for result in results if result["name"] not in {each.benchmark.name for each in posed}],
    )


def check_request(config: Config, machine: Machine) -> None:
    """Raise BadInput for what is wrong whatever the model."""
    if not machine.present:
        raise BadInput(f"device={config.device}: this machine has no {config.device}; leave it out")
    check_build(config, machine, software_versions(VLLM_BUILDS))
    if not config.benchmarks:
        raise BadInput("benchmarks=[]: nothing to evaluate on; name some, such as benchmarks=[aime24,amc23]")
    if config.eval.temperature == 0 and config.n > 1:
        raise BadInput(f"n={config.n} with eval.temperature=0: all samples would be the same; set n=1")


def carry_out(evaluation: Evaluation, console: Console, deadline: float) -> str:
    """Start Ray and the engines and draw what is missing. deadline: of time.monotonic.

    Return how that ended: completed, budget_exhausted, failed, or the name of a signal.
    """
    config, placement, folder = evaluation.config, evaluation.placement, evaluation.folder.path
    check_host(needs_of_evaluation(config, shape_from_config(evaluation.model_path), placement), folder)
    show_only(choose(detect(config.device).cards, placement, learner=0.0))
    cause: BaseException | None = None
    with ray_session(config, placement, folder, dashboard=False) as (session, _, _):
        from launch.evaluation.drawing import draw_samples

        with EvaluationView(console, evaluation.sample_files) as view:
            work = draw_samples(
                config,
                evaluation.model_path,
                placement,
                evaluation.sample_files,
                deadline=deadline,
                record=view.note,
                on_start=lambda: write_results(evaluation, "running"),
                on_sample=view.show,
            )
            try:
                status = asyncio.run(work)
            except Exception as error:  # from a task group; what is foreseen is told below, the rest goes on up
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


def write_results(evaluation: Evaluation, status: str) -> dict[str, Any]:
    """Write evaluation.json and evaluation.md from all that is complete. Return the content of the former."""
    written = evaluation.folder.document()
    document = {
        "status": status,
        "protocol": evaluation.protocol,
        "benchmarks": evaluation.others
        + [result for each in evaluation.samples if (result := result_of(*each, evaluation.config))],
        "versions": written["versions"] if written and status == "completed" else software_versions(),
    }
    evaluation.folder.write(document, markdown(document))
    return document


def result_of(posed: BenchmarkProblems, sample_files: list[SampleFile], config: Config) -> dict[str, Any] | None:
    """Return what was asked of a benchmark and its scores over the rounds that all policies have; None without any."""
    rounds = min(sample_file.rounds for sample_file in sample_files)
    if not rounds:
        return None
    rows = [sample_file.samples(rounds) for sample_file in sample_files]
    base, *adapted = [scores(own) | sample_file.cost for own, sample_file in zip(rows, sample_files, strict=True)]
    return {
        "name": posed.benchmark.name,
        "source": posed.benchmark.source,
        "problems": len(posed.problems),
        "dropped": posed.dropped,
        "n": config.n,
        "limit": config.limit,
        "base": base,
        "adapter": adapted[0] if adapted else None,
        "paired": comparison(*rows) if adapted else None,
    }


def conclude(evaluation: Evaluation, status: str, console: Console) -> int:
    """Write and show the results. Return the exit code."""
    document = write_results(evaluation, status)
    if document["benchmarks"]:
        console.print(results(document, console.width))
    for line in lines(document):
        console.print(line, highlight=False, markup=False)
    if not evaluation.complete:
        console.print(f"{status}: the same command goes on from here", highlight=False)
    folder = evaluation.folder.path
    console.print(f"{near(folder)}: evaluation.json, evaluation.md, samples/", soft_wrap=True, highlight=False)
    if RunRecord(folder.parent).exists:
        console.print(f"Report: {attempt(folder.parent)}", soft_wrap=True, highlight=False, markup=False)
    return EXIT_CODES[status] if status in EXIT_CODES else 128 + signal.Signals[status]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
