"""Results of an evaluation: evaluation.json, and one table for console and Markdown."""

from dataclasses import asdict
from functools import cache

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from actors.evaluation.samples import SampleFile
from actors.evaluation.scores import comparison, scores
from actors.formats import duration
from actors.messages import Status
from actors.runtime.process import software_versions
from actors.storage.documents import BenchmarkResult, EvaluationDocument, Measure, PolicyScores, ProtocolRecord
from launch.evaluation.preparation import PreparedEvaluation
from rewards.problems.loading import BenchmarkProblems
from rewards.verify.comparison import decide_by_text
from rewards.verify.text.spelling import plain

POLICIES = ("base", "adapter")

spelled = cache(plain)


def alike(answer: str, other: str) -> bool:
    """Whether two answers are the same by the verifier's rules for text and numbers, without algebra."""
    return decide_by_text(spelled(answer), spelled(other)) is Status.CORRECT


def write_results(evaluation: PreparedEvaluation, status: str) -> EvaluationDocument:
    """Write evaluation.json and evaluation.md from all complete rounds. Return the content of evaluation.json."""
    written = evaluation.folder.document()
    found = [result_of(*each, evaluation) for each in evaluation.samples]
    document = EvaluationDocument(
        status=status,
        protocol=ProtocolRecord.model_validate(asdict(evaluation.protocol)),
        benchmarks=evaluation.others + [result for result in found if result],
        versions=written.versions if written and status == "completed" else software_versions(),
    )
    evaluation.folder.write(document, markdown(document))
    return document


def result_of(
    problems: BenchmarkProblems, sample_files: list[SampleFile], evaluation: PreparedEvaluation
) -> BenchmarkResult | None:
    """Return the scores on a benchmark over the rounds that all policies have completed; None without one."""
    rounds = min(sample_file.rounds for sample_file in sample_files)
    if not rounds:
        return None
    rows = [sample_file.samples(rounds) for sample_file in sample_files]
    costs = [sample_file.cost for sample_file in sample_files]
    found = [scores(own, alike).model_copy(update=cost) for own, cost in zip(rows, costs, strict=True)]
    return BenchmarkResult(
        name=problems.benchmark.name,
        source=problems.benchmark.source,
        problems=len(problems.problems),
        dropped=problems.dropped,
        n=evaluation.config.n,
        limit=evaluation.config.limit,
        base=found[0],
        adapter=found[1] if len(found) > 1 else None,
        paired=comparison(*rows) if len(found) > 1 else None,
    )


def by_policy(result: BenchmarkResult) -> dict[str, PolicyScores | None]:
    return dict(zip(POLICIES, (result.base, result.adapter), strict=True))


def table_rows(document: EvaluationDocument) -> list[tuple[str, ...]]:
    """Return the table of results, headings first: a row per benchmark and score, a column per policy."""
    policies = [policy for policy in POLICIES if any(by_policy(each)[policy] for each in document.benchmarks)]
    found: list[tuple[str, ...]] = [("benchmark", "score", *policies)] if policies else []
    for benchmark in document.benchmarks:
        title, measured = f"{benchmark.name}, {benchmark.problems} problems", by_policy(benchmark)
        columns = [_figures(own) if (own := measured[policy]) else {} for policy in policies]
        for name in columns[0]:
            found.append((title, name, *(column.get(name, "") for column in columns)))
            title = ""
    return found


def _figures(scores: PolicyScores) -> dict[str, str]:
    """Return the scores of a policy as text, in the order of the table."""
    measured = {f"pass@{k}": found for k, found in scores.pass_at.items()} | {"maj@n": scores.maj_at_n}
    return {
        "n": str(scores.n),
        **{name: _with_interval(found) for name, found in measured.items() if found},
        "length": f"{scores.mean_length:.0f}",
        "cut": f"{scores.truncated:.0%}",
        "format": f"{scores.format or 0:.0%}",
        "unverified": f"{scores.unjudged:.1%}",
        "tokens": f"{scores.tokens:,}",
        "time": duration(scores.seconds),
    }


def _with_interval(found: Measure) -> str:
    return f"{found.value:.3f}" + (" ({:.3f}–{:.3f})".format(*found.ci95) if found.ci95 else "")


def table(document: EvaluationDocument) -> Table:
    """Return the results for the console."""
    headings, *body = table_rows(document)
    view = Table(box=SIMPLE_HEAD)
    for number, heading in enumerate(headings):
        view.add_column(heading, justify="left" if number < 2 else "right")
    for row in body:
        view.add_row(*map(Text, row))
    return view


def markdown(document: EvaluationDocument) -> str:
    """Return the results as a Markdown table, with the notes below it."""
    found = table_rows(document)
    if found:
        found.insert(1, ("---",) * len(found[0]))
    return "\n".join([*(f"| {' | '.join(row)} |" for row in found), "", *(f"{line}\n" for line in notes(document))])


def notes(document: EvaluationDocument) -> list[str]:
    """Return the sentences below the table: the protocol, and the adapter compared with the base model."""
    protocol = document.protocol
    said = [
        f"{protocol.model} in {protocol.dtype}: temperature {protocol.temperature:g}, top_p "
        f"{protocol.top_p:g}, at most {protocol.max_response_tokens} tokens per response, seed {protocol.seed}; "
        "95 % intervals over problems; time is the sum of the seconds between consecutive samples"
    ]
    if protocol.adapter and (adapter := protocol.adapter_config):
        said.append(f"adapter: {protocol.adapter}, of rank {adapter['rank']}, made for {adapter['base']}")
    for benchmark in document.benchmarks:
        name, base = benchmark.name, benchmark.base
        if paired := benchmark.paired:
            sure = f"{benchmark.problems} problems, too few to tell it from chance"
            if paired.ci95:
                sure = "95 % interval {:+.3f} to {:+.3f}, p = {:.2g}".format(*paired.ci95, paired.p)
            said.append(f"{name}: adapter minus base {paired.difference:+.3f} in pass@1 ({sure})")
        if base and base.n < benchmark.n:
            said.append(f"{name}: {base.n} of {benchmark.n} samples per problem so far")
        if filtered := ", ".join(f"{count} {reason}" for reason, count in benchmark.dropped.items()):
            said.append(f"{name}: problems filtered from its source: {filtered}")
    return said if document.benchmarks else [*said, "No round of samples is complete yet"]
