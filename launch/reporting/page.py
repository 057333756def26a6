"""Puts the report together as a page and as Markdown."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conf.load import RECORD
from launch.reporting import health, plots, sweep_plots, sweep_tables, sweep_verdict, tables, verdict
from launch.reporting.history import Run, Sweep
from launch.reporting.paper import results_for
from launch.reporting.wording import shorten

TEMPLATES = Path(__file__).parent / "templates"

CONTROLS = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
UNSEEN = dict.fromkeys(CONTROLS, "\N{REPLACEMENT CHARACTER}")
"""Characters that do not belong into a page, and those by which text is made to run backwards."""

LIVE = re.compile(r"[\\`*_\[\]<>&|~$]|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
"""What Markdown would make something of: marks, and the middle of an address, which is a link without any."""


@dataclass(frozen=True)
class Report:
    """A report in both formats.

    html: one file that needs no other.
    markdown: the same without plots and samples.
    """

    html: str
    markdown: str


def run_report(run: Run, settings: str | None = None) -> Report:
    """Write the report of a run. settings: all that it shows of them, as YAML; those in the run's folder when None."""
    change = verdict.change(run)
    return _render(
        "run",
        title=run.name,
        verdict=verdict.verdict(run, change),
        finding=change.finding if change else "none",
        basis=verdict.basis(run, change),
        run=run,
        change=change,
        flags=health.flags(run),
        paper=results_for(run.model),
        settings=(run.folder / RECORD).read_text("utf-8") if settings is None else settings,
    )


def sweep_report(sweep: Sweep) -> Report:
    """Write the report of a sweep, or of runs that are compared."""
    return _render(
        "sweep",
        title=sweep.name,
        verdict=sweep_verdict.verdict(sweep),
        finding="none",
        sweep=sweep,
        links={run.name: link for run in sweep.runs if (link := _link(sweep, run))},
    )


def _link(sweep: Sweep, run: Run) -> str | None:
    """Return where a run's own report is, as seen from the sweep's."""
    report = run.folder / "report.html"
    return quote(os.path.relpath(report, sweep.folder)) if report.exists() else None


def _render(template: str, **values: Any) -> Report:
    html, markdown = (_environment(kind == "html").get_template(f"{template}.{kind}") for kind in ("html", "md"))
    return Report(html.render(values), markdown.render(values))


def clean(value: Any) -> Any:
    """Return text that any page can carry: no control characters, no halves of characters."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return value.translate(UNSEEN).encode("utf-8", "replace").decode()


def cell(text: str) -> str:
    """Return text that Markdown shows as it is, in a table or elsewhere: no link, image, emphasis or HTML."""
    return LIVE.sub(r"\\\g<0>", clean(str(text))).replace("\n", " ")


def _environment(html: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=clean,
    )
    made.filters.update(cell=cell, shorten=shorten)
    made.globals.update(
        plots=plots,
        sweep_plots=sweep_plots,
        sweep_tables=sweep_tables,
        sweep_verdict=sweep_verdict,
        tables=tables,
        style=Markup((TEMPLATES / "style.css").read_text("utf-8")),
    )
    return made
