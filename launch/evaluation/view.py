"""Progress and results of an evaluation on the console and in Markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from actors.formats import duration
from actors.storage.evaluation_folder import SampleFile

LINES = 20
"""Lines of progress where there is no terminal to draw a bar on."""

WIDE = 120
"""Columns from which a table of all scores is readable."""

FURTHER = ("maj@n", "length", "cut", "format", "tokens", "time")
"""Columns after those of pass@k."""

Document = dict[str, Any]
"""Content of evaluation.json."""


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

    def note(self, name: str, text: str) -> None:
        """Say why an actor was replaced."""
        self._bar.console.print(f"{name}: {text}", soft_wrap=True, highlight=False, markup=False)

    @property
    def _drawn(self) -> int:
        return sum(sample_file.drawn for sample_file in self._sample_files)


def running_estimate(sample_files: Sequence[SampleFile]) -> str:
    """Return a sentence on pass@1 of all samples so far, by policy."""
    parts = []
    for policy in ("base", "adapter"):
        own = [
            sample_file for sample_file in sample_files if (sample_file.adapter is not None) == (policy == "adapter")
        ]
        if drawn := sum(sample_file.drawn for sample_file in own):
            parts.append(f"{policy} {sum(sample_file.correct for sample_file in own) / drawn:.3f}")
    return "pass@1 so far: " + ", ".join(parts)


def results(document: Document, width: int) -> RenderableType:
    """Return the scores as a table, or below WIDE columns as a block for each benchmark."""
    return table(document) if width >= WIDE else Group(*_blocks(document))


def _blocks(document: Document) -> Iterator[RenderableType]:
    names = pass_names(document)
    for benchmark in document["benchmarks"]:
        policies = [policy for policy in ("base", "adapter") if benchmark[policy]]
        block = Table.grid(padding=(0, 2))
        block.add_row("", *(Text(policy, "bold") for policy in policies))
        columns = [_cells(benchmark[policy], names, "{} ({})") for policy in policies]
        for heading, *cells in zip(("n", *names, *FURTHER), *columns, strict=True):
            if any(cells):
                block.add_row(Text(heading, "cyan"), *cells)
        yield Text(f"{benchmark['name']}, {benchmark['problems']} problems", "bold")
        yield Padding(block, (0, 0, 1, 2))


def table(document: Document) -> Table:
    """Return a table with a row for each policy on each benchmark, intervals under the values."""
    view = Table()
    for number, heading in enumerate(("benchmark", "policy", "n", *pass_names(document), *FURTHER)):
        view.add_column(heading, justify="left" if number < 2 else "right")
    for benchmark, policy, scores in _policies(document):
        name = f"{benchmark['name']}\n{benchmark['problems']} problems"
        cells = (name, policy, *_cells(scores, pass_names(document), "{}\n{}"))
        parts = (cell.partition("\n") for cell in cells)
        view.add_row(*(Text(first).append(line + second, "dim") for first, line, second in parts))
    return view


def markdown(document: Document) -> str:
    """Return the table for pasting, with `lines` below it."""
    headings = ("benchmark", "problems", "policy", "n", *pass_names(document), *FURTHER)
    rows = [
        (benchmark["name"], str(benchmark["problems"]), policy, *_cells(scores, pass_names(document), "{} ({})"))
        for benchmark, policy, scores in _policies(document)
    ]
    body = [headings, ("---",) * len(headings), *rows] if rows else []
    return "\n".join(["| " + " | ".join(row) + " |" for row in body] + [""] + [f"{line}\n" for line in lines(document)])


def lines(document: Document) -> list[str]:
    """Return sentences on what a table does not say: the protocol, and the adapter against the base model."""
    protocol = document["protocol"]
    said = [
        f"{protocol['model']} in {protocol['dtype']}: temperature {protocol['temperature']:g}, top_p "
        f"{protocol['top_p']:g}, at most {protocol['max_response_tokens']} tokens a response, seed {protocol['seed']}; "
        "95 % intervals over problems; time is the engine's, shared among the samples under way"
    ]
    if protocol["adapter"]:
        adapter = protocol["adapter_config"]
        said.append(f"adapter: {protocol['adapter']}, of rank {adapter['rank']}, made for {adapter['base']}")
    for benchmark in document["benchmarks"]:
        if paired := benchmark["paired"]:
            sure = f"{benchmark['problems']} problems, too few to tell it from chance"
            if paired["ci95"]:
                sure = "95 % interval {:+.3f} to {:+.3f}".format(*paired["ci95"]) + f", p = {paired['p']:.2g}"
            said.append(f"{benchmark['name']}: adapter less base {paired['difference']:+.3f} in pass@1 ({sure})")
        if benchmark["base"]["n"] < benchmark["n"]:
            said.append(f"{benchmark['name']}: {benchmark['base']['n']} of {benchmark['n']} samples a problem so far")
        if dropped := benchmark["dropped"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
            said.append(f"{benchmark['name']}: beside its {benchmark['problems']} problems were dropped: {reasons}")
    said += [
        f"{benchmark['name']}: {scores['unjudged']:.1%} of {policy} answers hung or broke the grader: not solved"
        for benchmark, policy, scores in _policies(document)
        if scores["unjudged"]
    ]
    if not document["benchmarks"]:
        said.append("No round of samples is complete yet")
    return said


def pass_names(document: Document) -> list[str]:
    """Return the names of all pass@k of a document, by k."""
    names = {name for _, _, scores in _policies(document) for name in scores if name.startswith("pass@")}
    return sorted(names, key=lambda name: int(name.removeprefix("pass@")))


def _policies(document: Document) -> Iterator[tuple[Document, str, Document]]:
    for benchmark in document["benchmarks"]:
        for policy in ("base", "adapter"):
            if benchmark[policy]:
                yield benchmark, policy, benchmark[policy]


def _cells(scores: Document, passes: Sequence[str], form: str) -> list[str]:
    """Return a row from its n on. form: of a value with its interval; the cell is empty where there is none."""
    measured = [scores.get(name) for name in (*passes, "maj@n")]
    return [
        str(scores["n"]),
        *(form.format(f"{f['value']:.3f}", "{:.3f}–{:.3f}".format(*f["ci95"])) if f else "" for f in measured),
        f"{scores['mean_length']:.0f}",
        f"{scores['truncated']:.0%}",
        f"{scores['format']:.0%}",
        f"{scores['tokens']:,}",
        duration(scores["seconds"]),
    ]
