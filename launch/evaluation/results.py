"""Results of an evaluation: evaluation.json, and one table for console and Markdown."""

from functools import cache

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from actors.evaluation.samples import PolicySamples
from actors.evaluation.statistics import comparison
from actors.messages import Status
from actors.runtime.process import software_versions
from actors.storage.documents import BenchmarkResult, EvaluationDocument
from launch.evaluation.preparation import PreparedEvaluation
from launch.reporting.tables import evaluation_notes, evaluation_rows
from launch.reporting.wording import cell
from rewards.problems.loading import BenchmarkProblems
from rewards.verify.comparison import decide_by_text
from rewards.verify.text.spelling import plain

spelled = cache(plain)


def alike(answer: str, other: str) -> bool:
    """Whether two answers are the same by the verifier's rules for text and numbers, without algebra."""
    return decide_by_text(spelled(answer), spelled(other)) is Status.CORRECT


def write_results(evaluation: PreparedEvaluation, status: str) -> EvaluationDocument:
    """Write evaluation.json and evaluation.md from all complete rounds, and the results so far of other benchmarks.
    Return the content of evaluation.json.
    """
    written, names = evaluation.folder.document(), {problems.benchmark.name for problems, _ in evaluation.samples}
    others = [each for each in (written.benchmarks if written else ()) if each.name not in names]
    found = [result_of(*each, evaluation) for each in evaluation.samples]
    document = EvaluationDocument(
        status=status,
        protocol=evaluation.protocol,
        benchmarks=others + [result for result in found if result],
        versions=written.versions if written and status == "completed" else software_versions(),
    )
    evaluation.folder.write(document, markdown(document))
    return document


def result_of(
    problems: BenchmarkProblems, policies: list[PolicySamples], evaluation: PreparedEvaluation
) -> BenchmarkResult | None:
    """Return the scores on a benchmark over the rounds that all policies have completed; None without one."""
    if not (rounds := min(policy.rounds for policy in policies)):
        return None
    samples = [policy.of_rounds(rounds) for policy in policies]
    found = [policy.scores(own, alike) for policy, own in zip(policies, samples, strict=True)]
    return BenchmarkResult(
        name=problems.benchmark.name,
        source=problems.benchmark.source,
        problems=len(problems.problems),
        filtered_counts=problems.filtered_counts,
        n=evaluation.config.n,
        limit=evaluation.config.limit,
        base=found[0],
        adapter=found[1] if len(found) > 1 else None,
        paired=comparison(*samples) if len(found) > 1 else None,
    )


def results_table(document: EvaluationDocument) -> Table:
    headings, *body = evaluation_rows(document)
    view = Table(box=SIMPLE_HEAD)
    for number, heading in enumerate(headings):
        view.add_column(heading, justify="left" if number < 2 else "right")
    for row in body:
        view.add_row(*map(Text, row))
    return view


def markdown(document: EvaluationDocument) -> str:
    """Return the results as a Markdown table, with the notes below it."""
    found = evaluation_rows(document)
    rows = [f"| {' | '.join(map(cell, row))} |" for row in found]
    if found:
        rows.insert(1, "|" + " --- |" * len(found[0]))
    return "\n".join([*rows, "", *(f"{cell(line)}\n" for line in evaluation_notes(document))])
