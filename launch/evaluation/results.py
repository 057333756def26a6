"""Results of an evaluation: evaluation.json, and one table for console and Markdown."""

from dataclasses import asdict
from functools import cache
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from actors.evaluation.samples import SampleFile
from actors.evaluation.scores import comparison, scores
from actors.formats import duration
from actors.messages import Status
from actors.runtime.process import software_versions
from launch.evaluation.preparation import PreparedEvaluation
from rewards.problems.benchmarks import BenchmarkProblems
from rewards.verify.comparison import decide_by_text
from rewards.verify.text.spelling import plain

POLICIES = ("base", "adapter")

Document = dict[str, Any]
"""Content of evaluation.json."""

spelled = cache(plain)


def alike(answer: str, other: str) -> bool:
    """Whether two answers are the same by the verifier's rules of text and number, without algebra."""
    return decide_by_text(spelled(answer), spelled(other)) is Status.CORRECT


def write_results(evaluation: PreparedEvaluation, status: str) -> Document:
    """Write evaluation.json and evaluation.md from all complete rounds. Return the content of the former."""
    written = evaluation.folder.document()
    found = [result_of(*each, evaluation) for each in evaluation.samples]
    document = {
        "status": status,
        "protocol": asdict(evaluation.protocol),
        "benchmarks": evaluation.others + [result for result in found if result],
        "versions": written["versions"] if written and status == "completed" else software_versions(),
    }
    evaluation.folder.write(document, markdown(document))
    return document


def result_of(
    problems: BenchmarkProblems, sample_files: list[SampleFile], evaluation: PreparedEvaluation
) -> Document | None:
    """Return the scores on a benchmark over the rounds that all policies have; None without any."""
    rounds = min(sample_file.rounds for sample_file in sample_files)
    if not rounds:
        return None
    rows = [sample_file.samples(rounds) for sample_file in sample_files]
    by_policy = [scores(own, alike) | sample_file.cost for own, sample_file in zip(rows, sample_files, strict=True)]
    return {
        "name": problems.benchmark.name,
        "source": problems.benchmark.source,
        "problems": len(problems.problems),
        "dropped": problems.dropped,
        "n": evaluation.config.n,
        "limit": evaluation.config.limit,
        "base": by_policy[0],
        "adapter": by_policy[1] if len(by_policy) > 1 else None,
        "paired": comparison(*rows) if len(by_policy) > 1 else None,
    }


def table_rows(document: Document) -> list[tuple[str, ...]]:
    """Return the table of results, headings first: a row for each score of each benchmark, policies side by side."""
    policies = [policy for policy in POLICIES if any(benchmark[policy] for benchmark in document["benchmarks"])]
    found: list[tuple[str, ...]] = [("benchmark", "score", *policies)] if policies else []
    for benchmark in document["benchmarks"]:
        title = f"{benchmark['name']}, {benchmark['problems']} problems"
        columns = [_figures(benchmark[policy]) if benchmark[policy] else {} for policy in policies]
        for name in columns[0]:
            found.append((title, name, *(column.get(name, "") for column in columns)))
            title = ""
    return found


def _figures(scores: Document) -> dict[str, str]:
    """Return the scores of a policy as text, in the order of the table."""
    measured = {name: found for name, found in scores.items() if isinstance(found, dict)}
    return {
        "n": str(scores["n"]),
        **{name: "{:.3f} ({:.3f}–{:.3f})".format(found["value"], *found["ci95"]) for name, found in measured.items()},
        "length": f"{scores['mean_length']:.0f}",
        "cut": f"{scores['truncated']:.0%}",
        "format": f"{scores['format']:.0%}",
        "unverified": f"{scores['unjudged']:.1%}",
        "tokens": f"{scores['tokens']:,}",
        "time": duration(scores["seconds"]),
    }


def table(document: Document) -> Table:
    """Return the results for the console."""
    headings, *body = table_rows(document)
    view = Table(box=SIMPLE_HEAD)
    for number, heading in enumerate(headings):
        view.add_column(heading, justify="left" if number < 2 else "right")
    for row in body:
        view.add_row(*map(Text, row))
    return view


def markdown(document: Document) -> str:
    """Return the same table for pasting, with the notes below it."""
    found = table_rows(document)
    if found:
        found.insert(1, ("---",) * len(found[0]))
    return "\n".join([*(f"| {' | '.join(row)} |" for row in found), "", *(f"{line}\n" for line in notes(document))])


def notes(document: Document) -> list[str]:
    """Return sentences below the table: the protocol, and the adapter against the base model."""
    protocol = document["protocol"]
    said = [
        f"{protocol['model']} in {protocol['dtype']}: temperature {protocol['temperature']:g}, top_p "
        f"{protocol['top_p']:g}, at most {protocol['max_response_tokens']} tokens a response, seed {protocol['seed']}; "
        "95 % intervals over problems; time is the sum of the seconds between one sample and the next"
    ]
    if protocol["adapter"]:
        adapter = protocol["adapter_config"]
        said.append(f"adapter: {protocol['adapter']}, of rank {adapter['rank']}, made for {adapter['base']}")
    for benchmark in document["benchmarks"]:
        name = benchmark["name"]
        if paired := benchmark["paired"]:
            sure = f"{benchmark['problems']} problems, too few to tell it from chance"
            if paired["ci95"]:
                sure = "95 % interval {:+.3f} to {:+.3f}, p = {:.2g}".format(*paired["ci95"], paired["p"])
            said.append(f"{name}: adapter less base {paired['difference']:+.3f} in pass@1 ({sure})")
        if benchmark["base"]["n"] < benchmark["n"]:
            said.append(f"{name}: {benchmark['base']['n']} of {benchmark['n']} samples per problem so far")
        if filtered := ", ".join(f"{count} {reason}" for reason, count in benchmark["dropped"].items()):
            said.append(f"{name}: problems filtered from its source: {filtered}")
    return said if document["benchmarks"] else [*said, "No round of samples is complete yet"]
