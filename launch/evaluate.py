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
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from rich.console import Console

from actors.adapter_check.effect_check import check_effect
from actors.coordinator.stopping import StopController
from actors.errors import ActorDied, root_cause
from actors.evaluation.evaluator import Evaluator
from actors.evaluation.protocol import Protocol
from actors.evaluation.samples import EvaluationFolder, SampleFile
from actors.evaluation.scores import comparison, scores
from actors.messages import AdapterRef, Status
from actors.models.adapters import adopt_adapter
from actors.models.files import load_tokenizer, locate, shape_from_config
from actors.runtime.clock import WallClock
from actors.runtime.placement import Placement, place_engines
from actors.runtime.process import VLLM_BUILDS, exit_at_once, handle_signals, software_versions
from actors.runtime.ray_session import clear_session, ray_session
from actors.storage.documents import BenchmarkResult, EvaluationDocument, ProtocolRecord
from actors.storage.run_record import RunRecord
from conf.catalogue import HELD_OUT, find_benchmarks
from conf.checks import check_lengths
from conf.command import PlainConsole, asks_for_help, command, near
from conf.errors import BadInput
from conf.help import explain
from conf.load import load, run_of
from conf.schema import Config, among, marked
from launch.evaluation.view import EvaluationView, lines, markdown, table
from launch.hardware.cards import choose, show_only
from launch.hardware.machine import Machine, check_build, detect
from launch.plan.engines import check_engines
from launch.plan.host_needs import check_host, needs_of_evaluation
from launch.reporting import attempt
from launch.session.resume import changes, resolve_dtype, take_over
from rewards.pool import check_judges
from rewards.problems.loading import BenchmarkProblems, load_benchmark
from rewards.reward import reward_function
from rewards.verify.comparison import decide_by_text
from rewards.verify.text.spelling import plain

EXIT_CODES = {"completed": 0, "budget_exhausted": 0, "failed": 1}

CLOSE_S = 10.0
"""Seconds that actors have to end by themselves; Ray's shutdown kills who hangs."""


@dataclass(frozen=True, kw_only=True)
class PreparedEvaluation:
    """What is to be drawn, and where it is kept.

    samples: of each benchmark those of the base model and, if there is one, of the adapter.
    others: results of benchmarks that were asked for before, and not this time.
    """

    config: Config
    folder: EvaluationFolder
    model_path: str
    placement: Placement
    protocol: Protocol
    samples: list[tuple[BenchmarkProblems, list[SampleFile]]]
    others: list[BenchmarkResult]

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
        evaluation = prepare(resolve_dtype(config, machine), machine, console)
        if evaluation is None:
            return 0
        status = "completed"
        if not evaluation.complete:
            status = carry_out(evaluation, console, started + evaluation.config.budget.seconds)
        return conclude(evaluation, status, console)
    except SystemExit as told:  # by SIGTERM while Ray started, whose handler it then is
        return 128 + int(told.code or 0)


def prepare(config: Config, machine: Machine, console: Console) -> PreparedEvaluation | None:
    """Find and check model, adapter and problems, and only then touch the folder.

    Return None if only the plan was asked for, which is what is printed here.
    """
    check_request(config, machine)
    model_path = locate(config.model)
    shape = shape_from_config(model_path)
    check_lengths(config, shape.context)
    config, adapter = adopt_adapter(config, model_path)
    placement = place_engines(machine.cores, machine.gpus)
    if config.reward.workers is not None:
        placement = replace(placement, reward_workers=config.reward.workers)
    check_engines(config, shape, machine, placement)
    run = run_of(config.adapter)
    folder = EvaluationFolder.of(config, run)
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
    protocol = Protocol.of(config, model_path, adapter)
    take_over(folder.path, f"the evaluation {config.run.name!r}")
    results = folder.begin(config, protocol)
    policies = [None, *([AdapterRef(0, 0, str(adapter.folder))] if adapter else [])]
    return PreparedEvaluation(
        config=config,
        folder=folder,
        model_path=model_path,
        placement=placement,
        protocol=protocol,
        samples=[
            (each, [folder.sample_file(each.benchmark.name, each.problems, config.n, policy) for policy in policies])
            for each in posed
        ],
        others=[result for result in results if result.name not in {each.benchmark.name for each in posed}],
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


def check_heldout_settings(config: Config, run: Path) -> None:
    """Raise BadInput if held-out problems are asked for, and would be chosen otherwise than for the run that the
    adapter comes from.
    """
    if HELD_OUT not in config.benchmarks:
        return
    for key, (before, now) in changes(config, RunRecord(run)).items():
        if among(key, marked("chooses_problems")) and not among(key, marked("resumable")):
            raise BadInput(
                f"benchmarks={HELD_OUT}: the run in {run} has {key}={before}, not {now}, under which problems could "
                "count as held out that it was trained on; leave that setting as it was"
            )


def check_heldout_problems(config: Config, run: Path, posed: Iterable[BenchmarkProblems]) -> None:
    """Raise BadInput if the held-out problems are not those that the run began with."""
    known = RunRecord(run).problems_digest()
    if known is not None and any(each.digest not in ("", known) for each in posed):
        raise BadInput(
            f"benchmarks={HELD_OUT}: {config.data.source} has other problems now than the run in {run} was begun "
            "with, some of which it may have been trained on; restore data and settings, or name other benchmarks"
        )


def carry_out(evaluation: PreparedEvaluation, console: Console, deadline: float) -> str:
    """Start Ray and the engines and draw what is missing. deadline: of time.monotonic.

    Return how that ended: completed, budget_exhausted, failed, or the name of a signal.
    """
    config, placement, folder = evaluation.config, evaluation.placement, evaluation.folder.path
    check_host(needs_of_evaluation(config, shape_from_config(evaluation.model_path), placement), folder)
    show_only(choose(detect(config.device).cards, placement, learner=0.0))
    cause: BaseException | None = None
    with (
        ray_session(config, placement, folder, dashboard=False) as (session, _, _),
        EvaluationView(console, evaluation.sample_files) as view,
    ):
        try:
            status = asyncio.run(draw(evaluation, deadline, view))
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


async def draw(evaluation: PreparedEvaluation, deadline: float, view: EvaluationView) -> str:
    """Draw what is missing, once the answers of every engine have differed with the adapter and without.

    Return how it ended: completed, budget_exhausted, or the name of a signal. The first SIGINT or SIGTERM stops the
    drawing, the second ends this process.
    """
    from launch.session.actors import start_engines, start_verifier

    config, placement, sample_files = evaluation.config, evaluation.placement, evaluation.sample_files
    clock = WallClock()
    stopping = StopController(clock)

    def on_signal(number: signal.Signals) -> None:
        if stopping.stopped:
            os._exit(128 + signal.Signals[stopping.reason])
        stopping.stop(number.name)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    engines = start_engines(config, evaluation.model_path, placement, clock=clock, record=view.note)
    verifier = start_verifier(config, placement, clock=clock, record=view.note)

    async def work() -> str:
        await engines.ready()
        if adapter := next((each.adapter for each in sample_files if each.adapter), None):
            await engines.load(adapter)
            await check_effect(config, engines, adapter, sample_files[0].problems[: config.canary.problems])
        write_results(evaluation, "running")
        at_once = config.rollout.max_concurrent_samples * len(placement.rollouts)
        await Evaluator(config, engines, verifier, clock).complete(sample_files, at_once, view.show)
        return "completed"

    try:
        async with asyncio.timeout(deadline - clock.now()):
            return await stopping.unless_stopped(work()) or stopping.reason
    except TimeoutError:
        return "budget_exhausted"
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(engines.close(), verifier.close(), return_exceptions=True)


def write_results(evaluation: PreparedEvaluation, status: str) -> EvaluationDocument:
    """Write evaluation.json and evaluation.md from all that is complete. Return the content of the former."""
    written = evaluation.folder.document()
    document = EvaluationDocument(
        status=status,
        protocol=ProtocolRecord.model_validate(asdict(evaluation.protocol)),
        benchmarks=evaluation.others
        + [result for each in evaluation.samples if (result := result_of(*each, evaluation.config))],
        versions=written.versions if written and status == "completed" else software_versions(),
    )
    evaluation.folder.write(document, markdown(document))
    return document


spelled = cache(plain)


def alike(answer: str, other: str) -> bool:
    """Whether two answers are the same by the verifier's rules of text and number, without algebra."""
    return decide_by_text(spelled(answer), spelled(other)) is Status.CORRECT


def result_of(posed: BenchmarkProblems, sample_files: list[SampleFile], config: Config) -> BenchmarkResult | None:
    """Return what was asked of a benchmark and its scores over the rounds that all policies have; None without any."""
    rounds = min(sample_file.rounds for sample_file in sample_files)
    if not rounds:
        return None
    rows = [sample_file.samples(rounds) for sample_file in sample_files]
    base, *adapted = [
        scores(own, alike).model_copy(update=sample_file.cost)
        for own, sample_file in zip(rows, sample_files, strict=True)
    ]
    return BenchmarkResult(
        name=posed.benchmark.name,
        source=posed.benchmark.source,
        problems=len(posed.problems),
        dropped=posed.dropped,
        n=config.n,
        limit=config.limit,
        base=base,
        adapter=adapted[0] if adapted else None,
        paired=comparison(*rows) if adapted else None,
    )


def conclude(evaluation: PreparedEvaluation, status: str, console: Console) -> int:
    """Write and show the results. Return the exit code."""
    document = write_results(evaluation, status)
    if document.benchmarks:
        console.print(table(document))
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
