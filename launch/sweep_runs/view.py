"""The display of a running sweep: a table with one row per run."""

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from launch.sweep_runs.grid import SweepRun
from launch.sweep_runs.jobs import Exam

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}


def plain_table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        words = name in ("run", "memory", "status", "exam", "GPUs")
        table.add_column(name, no_wrap=name == "run", justify="left" if words else "right")
    return table


def runs_table(runs: Sequence[SweepRun], bases: Sequence[Exam], exams: Mapping[str, Exam]) -> RenderableType:
    """Return the progress of every run and its held-out accuracy; means over seeds are in the report."""
    table = plain_table("run", "status", "spent", "updates", "held-out pass@1", *(["exam"] * bool(exams)))
    for inquiry in dict.fromkeys(run.inquiry for run in runs if run.inquiry):
        said = inquiry.answer.verdict if inquiry.answer else inquiry.status
        table.add_row(f"signal of {inquiry.name}", Text(said, STYLE.get(said, "bold yellow" if inquiry.remark else "")))
    for model in bases:
        table.add_row(model.name, *[""] * 4, Text(model.status, STYLE.get(model.status, "")))
    for run in runs:
        summary = run.record.summary()
        base, final = (summary.eval.base, summary.eval.final) if summary else (None, None)
        change = ""
        if base and final:
            change = "{:.3f} → {:.3f} ({:.3f}–{:.3f})".format(base.pass_at_1, final.pass_at_1, *final.ci95)
        statuses = [run.status, *([exams[run.name].status] if exams else [])]
        status, *exam = (Text(each, STYLE.get(each, "")) for each in statuses)
        spent = run.record.spent / run.config.budget.seconds
        table.add_row(run.name, status, f"{spent:.0%}", f"{run.record.updates}", change, *exam)
    return table
