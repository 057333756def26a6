"""Progress and results of an evaluation on the console and in Markdown."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from actors.evaluation.samples import SampleFile
from actors.formats import duration
from actors.storage.documents import BenchmarkResult, EvaluationDocument, EventKind, Measure, PolicyScores

LINES = 20
"""Lines of progress where there is no terminal to draw a bar on."""

POLICIES = ("base", "adapter")


class EvaluationView:
    """A bar over all samples, with pass@1 so far; off a terminal a line now and then."""

    def __init__(self, console: Console, sample_files: Sequence[SampleFile]) -> None:
        self._console = console
        self._sample_files = sample_files
        self._total = sum(sample_file.n * len(sample_file.problems) for sample_file in sample_files)
        self._last_part = -1
        self._bar = Progress(
            TextColumn("samples"),
            BarColumn(None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[estimate]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self._total, completed=self._drawn, estimate="starting")

    def __enter__(self) -> "EvaluationView":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Show how many samples there are."""
        self._bar.update(self._task, completed=self._drawn, estimate=running_estimate(self._sample_files))
        part = LINES * self._drawn // self._total
        if not self._console.is_terminal and part > self._last_part:
            estimate = running_estimate(self._sample_files)
            self._console.print(f"{self._drawn} of {self._total} samples, {estimate}", highlight=False)
            self._last_part = part

    def note(self, name: str, kind: EventKind, text: str) -> None:
        """Say why an actor was replaced."""
        self._bar.console.print(f"{name} {kind}: {text}", soft_wrap=True, highlight=False, markup=False)

    @property
    def _drawn(self) -> int:
        return sum(sample_file.drawn for sample_file in self._sample_files)


def running_estimate(sample_files: Sequence[SampleFile]) -> str:
    """Return a sentence on pass@1 of all samples so far, by policy."""
    parts = []
    for policy in POLICIES:
        own = [sample_file for sample_file in sample_files if bool(sample_file.adapter) == (policy == "adapter")]
        if drawn := sum(sample_file.drawn for sample_file in own):
            parts.append(f"{policy} {sum(sample_file.correct for sample_file in own) / drawn:.3f}")
    return "pass@1 so far: " + ", ".join(parts)


def by_policy(benchmark: BenchmarkResult) -> dict[str, PolicyScores | None]:
    """Return the scores by policy."""
    return dict(zip(POLICIES, (benchmark.base, benchmark.adapter), strict=True))


def rows(document: EvaluationDocument) -> list[tuple[str, ...]]:
    """Return the table of results, headings first: a row for each score of each benchmark, policies side by side."""
    policies = [policy for policy in POLICIES if any(by_policy(each)[policy] for each in document.benchmarks)]
    found: list[tuple[str, ...]] = [("benchmark", "score", *policies)] if policies else []
    for benchmark in document.benchmarks:
        title, scores = f"{benchmark.name}, {benchmark.problems} problems", by_policy(benchmark)
        columns = [_cells(own) if (own := scores[policy]) else {} for policy in policies]
        for name in columns[0]:
            found.append((title, name, *(column.get(name, "") for column in columns)))
            title = ""
    return found


def _cells(scores: PolicyScores) -> dict[str, str]:
    """Return the scores of a policy as a person reads them, in the order of the table."""
    measured = {f"pass@{k}": found for k, found in scores.pass_at.items()} | {"maj@n": scores.maj_at_n}
    return {
        "n": str(scores.n),
        **{name: _interval(found) for name, found in measured.items() if found},
        "length": f"{scores.mean_length:.0f}",
        "cut": f"{scores.truncated:.0%}",
        "format": f"{scores.format or 0:.0%}",
        "tokens": f"{scores.tokens:,}",
        "time": duration(scores.seconds),
    }


def _interval(found: Measure) -> str:
    return f"{found.value:.3f}" + (" ({:.3f}–{:.3f})".format(*found.ci95) if found.ci95 else "")


def table(document: EvaluationDocument) -> Table:
    """Return the results for the console."""
    headings, *body = rows(document)
    view = Table(box=SIMPLE_HEAD)
    for number, heading in enumerate(headings):
        view.add_column(heading, justify="left" if number < 2 else "right")
    for row in body:
        view.add_row(*map(Text, row))
    return view


def markdown(document: EvaluationDocument) -> str:
    """Return the same table for pasting, with `lines` below it."""
    found = rows(document)
    if found:
        found.insert(1, ("---",) * len(found[0]))
    return "\n".join([*(f"| {' | '.join(row)} |" for row in found), "", *(f"{line}\n" for line in lines(document))])


def lines(document: EvaluationDocument) -> list[str]:
    """Return sentences on what a table does not say: the protocol, and the adapter against the base model."""
    protocol = document.protocol
    said = [
        f"{protocol.model} in {protocol.dtype}: temperature {protocol.temperature:g}, top_p "
        f"{protocol.top_p:g}, at most {protocol.max_response_tokens} tokens a response, seed {protocol.seed}; "
        "95 % intervals over problems; time is the engine's, shared among the samples under way"
    ]
    if protocol.adapter and (adapter := protocol.adapter_config):
        said.append(f"adapter: {protocol.adapter}, of rank {adapter['rank']}, made for {adapter['base']}")
    for benchmark in document.benchmarks:
        name, base = benchmark.name, benchmark.base
        if paired := benchmark.paired:
            sure = f"{benchmark.problems} problems, too few to tell it from chance"
            if paired.ci95:
                sure = "95 % interval {:+.3f} to {:+.3f}".format(*paired.ci95) + f", p = {paired.p:.2g}"
            said.append(f"{name}: adapter less base {paired.difference:+.3f} in pass@1 ({sure})")
        if base and base.n < benchmark.n:
            said.append(f"{name}: {base.n} of {benchmark.n} samples a problem so far")
        if benchmark.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in benchmark.dropped.items())
            said.append(f"{name}: beside its {benchmark.problems} problems were dropped: {reasons}")
        said += [
            f"{name}: {scores.unjudged:.1%} of {policy} answers hung or broke the grader: not solved"
            for policy, scores in by_policy(benchmark).items()
            if scores and scores.unjudged
        ]
    if not document.benchmarks:
        said.append("No round of samples is complete yet")
    return said
