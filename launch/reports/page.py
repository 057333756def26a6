"""The report as a page and as Markdown."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from launch.reports import answer, plots, sweep_plots, sweep_tables, tables, verdict, wording
from launch.reports.health import flags
from launch.reports.history import Run, Sweep
from launch.reports.paper import results_for
from launch.reports.plots import Plot

FOLDER = Path(__file__).parent

CONTROLS = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
UNSEEN = dict.fromkeys(CONTROLS, "\N{REPLACEMENT CHARACTER}")
"""Characters that do not belong into a page, and those by which text is made to run backwards."""

LIVE = re.compile(r"[\\`*_\[\]<>&|~$]|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
"""What Markdown would make something of: marks, and the middle of an address, which is a link without any."""


@dataclass(frozen=True)
class Report:
    """html: one file that needs no other. markdown: the same without plots and samples."""

    html: str
    markdown: str


def run_report(run: Run) -> Report:
    found = verdict.change(run)
    paper = results_for(str(run.config.get("model.path", "")))
    return _render(
        "run",
        title=run.name,
        run=run,
        verdict=verdict.verdict(run, found),
        basis=verdict.basis(run, found),
        finding=found.finding if found else "none",
        change=found,
        settings=tables.settings(run),
        flags=flags(run),
        before_after=plots.before_after(found) if found else None,
        held_out=tables.held_out(run, found) if found else None,
        benchmarks=tables.benchmarks(run),
        entropy=tables.entropy_table(run),
        measures=tables.measures(run),
        paper=paper,
        curves=_present([*plots.curves(run), plots.effective_ranks(run)]),
        day=_present([plots.day(run), plots.fate(run)]),
        ledger=[table for table in (tables.seconds(run), tables.tokens(run)) if table],
        pairs=tables.pairs(run),
        events=tables.events(run),
        versions=run.summary.get("versions") or {},
        config=tables.whole_config(run),
    )


def sweep_report(sweep: Sweep) -> Report:
    return _render(
        "sweep",
        title=sweep.name,
        sweep=sweep,
        verdict=answer.answer(sweep),
        finding="none",
        sentences=answer.sentences(sweep),
        caveats=answer.caveats(sweep),
        cells=sweep_tables.cells(sweep),
        links={cell.name: link for cell in sweep.cells if cell.run and (link := _link(sweep, cell.run))},
        means=sweep_tables.means(sweep),
        comparisons=sweep_tables.comparisons(sweep),
        best_rates=sweep_tables.best_rates(sweep),
        entropy=sweep_tables.entropy(sweep),
        benchmarks=sweep_tables.benchmarks(sweep),
        concerns=sweep_tables.concerns(sweep),
        shared=sweep_tables.shared(sweep),
        curves=_present([sweep_plots.finals(sweep), sweep_plots.by_learning_rate(sweep), *sweep_plots.overlaid(sweep)]),
    )


def _link(sweep: Sweep, run: Run) -> str | None:
    """Where a run's own report is, as seen from the sweep's."""
    report = run.folder / "report.html"
    return quote(os.path.relpath(report, sweep.folder)) if report.exists() else None


def _present(drawn: list[Plot | None]) -> list[Plot]:
    return [plot for plot in drawn if plot]


def _render(template: str, **values: Any) -> Report:
    common = {"wording": wording, **values}
    return Report(
        _html.get_template(f"{template}.html").render(common), _markdown.get_template(f"{template}.md").render(common)
    )


def clean(text: str) -> str:
    """Text that any page can carry: no control characters, no halves of characters."""
    return str(text).translate(UNSEEN).encode("utf-8", "replace").decode()


def cell(text: str) -> str:
    """Text that Markdown shows as it is, in the row of a table or elsewhere: no link, image, emphasis or HTML."""
    return LIVE.sub(r"\\\g<0>", clean(text)).replace("\n", " ")


def _environment(html: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: (
            value if isinstance(value, Markup) else clean(value) if isinstance(value, str) else value
        ),
    )
    made.filters.update(cell=cell, shorten=wording.shorten, svg=lambda plot: Markup(plot.svg))
    made.globals["style"] = Markup((FOLDER / "style.css").read_text())
    return made


_html, _markdown = _environment(True), _environment(False)
