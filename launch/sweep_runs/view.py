"""The display of a running sweep: a table with one row per run."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from launch.sweep_runs.grid import SweepRun
from launch.sweep_runs.jobs import Exams

STYLE = {"running": "bold cyan", "failed": "bold red", "halted": "bold red", "pending": "dim"}


def table(*columns: str) -> Table:
    view = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        words = name in ("run", "memory", "status", "exam")
        view.add_column(name, no_wrap=name == "run", justify="left" if words else "right")
    return view


def runs_table(runs: Sequence[SweepRun], exams: Exams) -> RenderableType:
    """Return the progress of every run and its held-out accuracy; means over seeds are in the report."""
    of_exams = ["exam"] if exams.bases else []
    view = table("run", "status", "spent", "updates", "held-out pass@1", *of_exams)
    for base in exams.bases:
        view.add_row(base.name, "", "", "", "", _status(base.status))
    for run in runs:
        summary = run.record.summary()
        base_scores, final = (summary.eval.base, summary.eval.final) if summary else (None, None)
        change = ""
        if base_scores and final:
            change = "{:.3f} → {:.3f} ({:.3f}–{:.3f})".format(base_scores.pass_at_1, final.pass_at_1, *final.ci95)
        spent = run.record.spent / run.config.budget.seconds
        exam = [_status(exams.of_run[run.name].status)] if exams.bases else []
        view.add_row(run.name, _status(run.status), f"{spent:.0%}", f"{run.record.updates}", change, *exam)
    return view


def _status(status: str) -> Text:
    return Text(status, STYLE.get(status, ""))
