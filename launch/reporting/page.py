"""Assembles a report from sections, and renders it as HTML and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from microbudget_rl.actors.results import Results
from microbudget_rl.conf.load import RECORD
from microbudget_rl.launch.reporting import plots, run_conclusion, sweep_results, tables
from microbudget_rl.launch.reporting.health import Flag, flags
from microbudget_rl.launch.reporting.history import Sweep
from microbudget_rl.launch.reporting.paper import conclusion, traps
from microbudget_rl.launch.reporting.paper import tables as paper_tables
from microbudget_rl.launch.reporting.paper.results import ModelResults, read_results
from microbudget_rl.launch.reporting.plots import Plot
from microbudget_rl.launch.reporting.tables import BeforeAfter, Table
from microbudget_rl.launch.reporting.wording import cell, clean, shorten, unbroken

TEMPLATES = Path(__file__).parent / "templates"

SUBJECT = ("model", "data", "rank", "learning rate", "budget")
"""Settings that are listed below the conclusion."""


@dataclass(frozen=True)
class Report:
    """A report. html: a self-contained page. markdown: the same without plots, samples and the list of all settings."""

    html: str
    markdown: str


@dataclass(frozen=True)
class Section:
    """A part of a report. name: its id on the page. listing: a text that is unfolded by a click."""

    name: str
    title: str
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    flags: Sequence[Flag] = ()
    pairs: Sequence[BeforeAfter] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    listing: str = ""
    notes: Sequence[str] = ()

    @property
    def shown(self) -> bool:
        return any(map(any, (self.plots, self.tables, self.flags, self.pairs, self.facts)))


def run_report(run: Results, settings: str | None = None) -> Report:
    """Return the report of a run. settings: the settings to list, as YAML; those in the run's folder when None."""
    effect = run_conclusion.effect(run)
    listing = (run.folder / RECORD).read_text("utf-8") if settings is None else settings
    about = tables.settings(run)
    subject = [f"{name} {about[name]}" for name in SUBJECT if name in about]
    held_out = [tables.held_out(run, effect)] if effect else []
    facts = about | run.summary.versions | tables.provenance(run)
    benchmarks = [tables.benchmarks(run), *([tables.evaluation_table(run.evaluation)] if run.evaluation else [])]
    return _render(
        title=run.name,
        remark="",
        conclusion=run_conclusion.conclude(run, effect),
        finding=run_conclusion.finding(run),
        notes=[note for note in (run_conclusion.basis(run, effect), ", ".join(subject)) if note],
        lead=plots.learning_curve(run, effect),
        sections=[
            Section("before-and-after", "Before and after training", tables=held_out),
            Section("mastery", "What was learned when", plots.mastery(run)),
            Section("health", "Warnings and checks", flags=flags(run)),
            Section("benchmarks", "Benchmarks", tables=benchmarks),
            Section("curves", "Curves", plots.curves(run)),
            Section("plasticity", "Distance from the reference", tables=[tables.plasticity(run)]),
            Section("ledger", "Time and tokens", tables=[tables.tokens(run), tables.seconds(run)]),
            Section("samples", "Samples before and after training", pairs=tables.pairs(run)),
            Section("configuration", "Configuration", facts=facts, listing=listing),
        ],
    )


def sweep_report(sweep: Sweep) -> Report:
    results = read_results(sweep)
    answer = sweep_results.conclude(sweep)
    caveats = sweep_results.caveats(sweep)
    return _render(
        title=sweep.name,
        remark=sweep.remark,
        conclusion=conclusion.conclude(results) if results else answer,
        finding="none",
        notes=[f"On the held-out problems: {answer}", *caveats] if results else caveats,
        lead=paper_tables.gains(results) if results else plots.finals(sweep),
        sections=[
            *(_of_paper(sweep, results) if results else ()),
            Section("means", "By setting", tables=[sweep_results.means(sweep)]),
            Section("comparisons", "Compared", tables=[sweep_results.comparisons(sweep)]),
            Section("health", "Warnings", tables=[sweep_results.concerns(sweep)]),
            Section("runs", "Runs", tables=[sweep_results.runs(sweep)]),
            Section("curves", "Curves", plots=plots.overlaid(sweep)),
            Section("configuration", "Settings of all runs", facts=sweep_results.shared(sweep)),
        ],
    )


def _of_paper(sweep: Sweep, results: Sequence[ModelResults]) -> list[Section]:
    notes = [paper_tables.chosen(results), *traps([each.name for each in results])]
    passed = paper_tables.passed(sweep, results)
    return [
        Section("passed", "Benchmarks before and after training (Table 1)", tables=passed, notes=notes),
        Section("entropy", "Entropy (Table 2)", tables=[paper_tables.entropies(results)]),
    ]


def _render(sections: list[Section], **values: Any) -> Report:
    values |= {"sections": [section for section in sections if section.shown]}
    html, markdown = (_environment().get_template(f"page.{kind}").render(values) for kind in ("html", "md"))
    return Report(html, markdown)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=clean,
    )
    made.filters.update(cell=cell, shorten=shorten, unbroken=unbroken)
    made.globals.update(style=Markup((TEMPLATES / "style.css").read_text("utf-8")))
    return made
