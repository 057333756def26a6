"""Behind evaluate.py: checks all that an evaluation needs before anything expensive starts, and writes its results."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from microbudget_rl.actors.evaluation.evaluator import PolicySamples
from microbudget_rl.actors.evaluation.folder import EvaluationFolder, protocol_of
from microbudget_rl.actors.evaluation.statistics import comparison
from microbudget_rl.actors.messages import HELD_OUT_SETS, AdapterRef, Status
from microbudget_rl.actors.models.adapters import adopt_adapter, pinned
from microbudget_rl.actors.models.files import load_tokenizer, locate, shape_from_config
from microbudget_rl.actors.runtime.process import software_versions
from microbudget_rl.actors.storage.documents import BenchmarkResult, EvaluationDocument, Protocol
from microbudget_rl.actors.storage.folders import claim
from microbudget_rl.actors.storage.run_record import RunRecord, named, sample_file
from microbudget_rl.conf.catalogue import find_benchmarks
from microbudget_rl.conf.checks import check_lengths
from microbudget_rl.conf.command import near
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.load import run_of
from microbudget_rl.conf.schema import CommandLine
from microbudget_rl.conf.settings import changed
from microbudget_rl.launch.hardware.machine import Machine, check_build
from microbudget_rl.launch.plan.memory import Fit
from microbudget_rl.launch.plan.plan import possible_samples
from microbudget_rl.launch.plan.refusal import engines_alone
from microbudget_rl.launch.reporting.tables import evaluation_notes, evaluation_table
from microbudget_rl.launch.reporting.wording import cell
from microbudget_rl.launch.session.admission import check_problems, result_of, take_over
from microbudget_rl.rewards.pool import check_reward_functions
from microbudget_rl.rewards.problems.loading import BenchmarkProblems, load_benchmark, load_held_out
from microbudget_rl.rewards.problems.rows import AnyProblem, RawProblem
from microbudget_rl.rewards.verify.comparison import decide_by_text
from microbudget_rl.rewards.verify.text.spelling import plain
from microbudget_rl.rewards.weighted_sum import reward_function


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation that can start. samples: of each benchmark, by the base model and, if there is one, the adapter."""

    config: CommandLine
    folder: EvaluationFolder
    model_path: str
    engines: Fit
    protocol: Protocol
    samples: list[tuple[BenchmarkProblems, list[PolicySamples]]]

    @property
    def policies(self) -> list[PolicySamples]:
        return [policy for _, policies in self.samples for policy in policies]

    @property
    def complete(self) -> bool:
        return all(policy.rounds == policy.n for policy in self.policies)


def prepare(config: CommandLine, machine: Machine, console: Console) -> PreparedEvaluation | None:
    """Find and check everything, and only then touch the folder. Return None if only the plan was requested."""
    check_request(config, machine)
    run = run_of(config.adapter)
    if run:
        config = changed(config, {"adapter": str(result_of(Path(config.adapter), f"adapter={config.adapter}"))})
    folder = EvaluationFolder.of(config, run)
    config = pinned(folder.as_begun(config), config.adapter)
    model_path = locate(config.model)
    shape = shape_from_config(model_path)
    check_lengths(config, shape.max_position_embeddings)
    config, adapter = adopt_adapter(config, config.adapter, model_path)
    config = changed(config, {"rollout.max_concurrent_samples": possible_samples(config, machine)[-1]})
    engines = engines_alone(config, shape, machine)
    if run:
        console.print(f"Settings of the run in {near(run)}")
    tokenizer = load_tokenizer(model_path, config.model.path)
    chose: list[AnyProblem] = []
    if run:
        chose = [RawProblem(text, gold) for text, gold in RunRecord(run).selection().values()]
    elif config.validation_problems:  # as a run of these settings will
        chose = [*load_held_out(config, tokenizer).selection]
    benchmarks = [
        load_benchmark(benchmark, config, tokenizer, config.limit, chose)
        for benchmark in find_benchmarks(config.benchmarks)
    ]
    for each in benchmarks:
        if run and each.digest:
            otherwise = "name other benchmarks, since it may have trained on these problems"
            check_problems(config, RunRecord(run), {HELD_OUT_SETS: each.digest}, otherwise)
        filtered = "".join(f"; {count} filtered: {reason}" for reason, count in each.filtered_counts.items())
        by = ", by base model and adapter" if adapter else ""
        console.print(f"{each.benchmark.name}: {len(each.problems)} problems × {config.n} samples{by}{filtered}")
    if config.plan:
        return None
    problems = [problem for each in benchmarks for problem in each.problems]
    for wall in check_reward_functions(reward_function(config), problems):
        console.print(f"Warning: this kernel has no {wall}")
    protocol = protocol_of(config, model_path, adapter)
    claim(folder.path.parent, "run")
    take_over(folder.path, "evaluation", f"the evaluation {config.run.name!r}", anew=config.run.overwrite)
    folder.begin(config, protocol)
    if config.base:
        folder.take_base(Path(config.base), protocol, (each.benchmark.name for each in benchmarks))
    adapters = {"base": None} | ({"adapter": AdapterRef(0, 0, str(adapter.folder))} if adapter else {})
    samples = []
    for each in benchmarks:
        files = {name: sample_file(folder.path, named(name, each.benchmark.name)) for name in adapters}
        by_policy = [PolicySamples(each.problems, config.n, adapters[name], file) for name, file in files.items()]
        samples.append((each, by_policy))
    return PreparedEvaluation(config, folder, model_path, engines, protocol, samples)


def check_request(config: CommandLine, machine: Machine) -> None:
    """Raise BadInput for mistakes that do not depend on the model."""
    if not machine.present:
        raise BadInput(f"device={config.device}: this machine has no {machine.name}; leave it out")
    check_build(config, machine)
    if not config.benchmarks:
        raise BadInput("benchmarks=[]: nothing to evaluate on; name some, such as benchmarks=[aime24,amc23]")
    if config.eval.temperature == 0 and config.n > 1:
        raise BadInput(f"n={config.n} with eval.temperature=0: all samples would be the same; set n=1")


spelled = cache(plain)


def alike(answer: str, other: str) -> bool:
    """Whether two answers are the same by the verifier's rules for text and numbers, without algebra."""
    return decide_by_text(spelled(answer), spelled(other)) is Status.CORRECT


def write_results(evaluation: PreparedEvaluation, status: str) -> EvaluationDocument:
    """Write and return the results of all complete rounds, with those so far of other benchmarks."""
    written, names = evaluation.folder.document(), {problems.benchmark.name for problems, _ in evaluation.samples}
    others = [each for each in (written.benchmarks if written else ()) if each.name not in names]
    scores = [scores_on(*each, evaluation) for each in evaluation.samples]
    document = EvaluationDocument(
        status=status,
        protocol=evaluation.protocol,
        benchmarks=others + [result for result in scores if result],
        versions=written.versions if written and status == "completed" else software_versions(),
    )
    evaluation.folder.write(document, markdown(document))
    return document


def scores_on(
    problems: BenchmarkProblems, policies: list[PolicySamples], evaluation: PreparedEvaluation
) -> BenchmarkResult | None:
    """Return the scores on a benchmark over the rounds that all policies have completed; None without one."""
    if not (rounds := min(policy.rounds for policy in policies)):
        return None
    samples = [policy.of_rounds(rounds) for policy in policies]
    scores = [policy.scores(own, alike) for policy, own in zip(policies, samples, strict=True)]
    return BenchmarkResult(
        name=problems.benchmark.name,
        source=problems.benchmark.source,
        problems=len(problems.problems),
        filtered_counts=problems.filtered_counts,
        n=evaluation.config.n,
        limit=evaluation.config.limit,
        base=scores[0],
        adapter=scores[1] if len(scores) > 1 else None,
        paired=comparison(*samples) if len(scores) > 1 else None,
    )


def results_table(document: EvaluationDocument) -> Table:
    table, view = evaluation_table(document), Table(box=SIMPLE_HEAD)
    for number, heading in enumerate(table.head):
        view.add_column(heading, justify="left" if number < 2 else "right")
    for row in table.body:
        view.add_row(*map(Text, row))
    return view


def markdown(document: EvaluationDocument) -> str:
    """Return the results as a Markdown table, with the notes below it."""
    table = evaluation_table(document)
    head, *rows = (f"| {' | '.join(map(cell, row))} |" for row in (table.head, *table.body))
    rows = [head, "|" + " --- |" * len(table.head), *rows] if table else []
    return "\n".join([*rows, "", *(f"{cell(line)}\n" for line in evaluation_notes(document))])
